"""A provider's limiters: the manifest's rates or the spec's, and one budget for all processes of the account."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import anyio

from runner.app import lanes
from runner.net.bucket import Bucket
from runner.net.limiter import Limiter
from runner.net.shared import SharedBucket
from runner.store.budget import Budget

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AsyncExitStack
    from pathlib import Path

    from runner.manifest.model import Manifest
    from runner.net.limiter import Pacer
    from runner.pipeline.clock import Clock
    from runner.providers.spec import Spec

#: a boot without a name, where the system gives none: stamps from before it show themselves, being in the future
_SOME_BOOT = "unnamed"


def limiters(
    spec: Spec,
    manifest: Manifest,
    home: Path,
    clock: Clock,
    stack: AsyncExitStack,
    notice: Callable[[str], None],
    *,
    loopback: bool,
) -> dict[str, Limiter]:
    """One for each endpoint; where the manifest gives no rate it begins with the spec's and finds out what holds."""
    found = {}
    for endpoint, rate in lanes.rates(spec, manifest, loopback=loopback).items():
        learns = manifest.limits.qps is None and endpoint != "upload"
        bucket = Bucket(rate.count, rate.seconds, ceiling=math.inf if learns else None)
        found[endpoint] = Limiter(_shared(bucket, home, endpoint, clock, stack, notice), clock.monotonic, anyio.sleep)
    return found


def has_company(limiters: Mapping[str, Limiter]) -> bool:
    """Whether other processes of ours are at the account now."""
    bucket = limiters["submit"].bucket
    return isinstance(bucket, SharedBucket) and bucket.others > 0


def _shared(
    bucket: Bucket, home: Path, endpoint: str, clock: Clock, stack: AsyncExitStack, notice: Callable[[str], None]
) -> Pacer:
    """The bucket as one of the account's, or alone where that cannot be: a run need not stop for it."""
    boot = _SOME_BOOT if clock.boot.startswith("process-") else clock.boot
    try:
        budget = Budget(home / "budget", endpoint, boot)
    except OSError as error:
        said = f"{home}: {error.strerror or error}"
        notice(f"{said}: the rate is not shared with other runs; RUNNER_HOME names the directory")
        return bucket
    shared = SharedBucket(bucket, budget, clock.monotonic, _later, notice)
    stack.callback(shared.close)
    return shared


def _later(seconds: float, call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, call)
