"""The rate limiters of a provider, shared by all processes that use its account."""

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

#: boot id if the system has none; timestamps of an earlier boot are then recognised by lying in the future
_SOME_BOOT = "unnamed"


def limiters(
    spec: Spec,
    manifest: Manifest,
    account: Path,
    clock: Clock,
    stack: AsyncExitStack,
    on_warning: Callable[[str], None],
    *,
    loopback: bool,
) -> dict[str, Limiter]:
    """Return a limiter for each endpoint.

    `account` is the directory that the account's jobs share.
    If the manifest sets no rate, a limiter begins with the spec's rate and adapts to what the provider accepts.
    """
    found = {}
    for endpoint, rate in lanes.rates(spec, manifest, loopback=loopback).items():
        adapts = manifest.limits.qps is None and endpoint != "upload"
        window = Bucket(rate.count, rate.seconds, ceiling=math.inf if adapts else None)
        pacer = _shared(window, account, endpoint, clock, stack, on_warning)
        found[endpoint] = Limiter(pacer, clock.monotonic, anyio.sleep)
    return found


def has_company(limiters: Mapping[str, Limiter]) -> bool:
    """Return True if other runner processes use the account now."""
    pacer = limiters["submit"].bucket
    return isinstance(pacer, SharedBucket) and pacer.others > 0


def _shared(
    window: Bucket,
    account: Path,
    endpoint: str,
    clock: Clock,
    stack: AsyncExitStack,
    on_warning: Callable[[str], None],
) -> Pacer:
    """Return the window with state that the account's processes share.

    If the shared state cannot be opened, warn and return the window alone, because a run need not stop for that.
    """
    boot = _SOME_BOOT if clock.boot.startswith("process-") else clock.boot
    try:
        state = Budget(account / "budget", endpoint, boot)
    except OSError as error:
        reason = f"{account}: {error.strerror or error}"
        on_warning(f"{reason}: the rate is not shared with other runs; RUNNER_HOME names the directory")
        return window
    shared = SharedBucket(window, state, clock.monotonic, _later, on_warning)
    stack.callback(shared.close)
    return shared


def _later(seconds: float, call: Callable[[], None]) -> None:
    """Call a function on the running event loop after a delay."""
    asyncio.get_running_loop().call_later(seconds, call)
