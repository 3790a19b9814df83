"""The rate limiters of a provider, shared by all processes that use its account."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import anyio

from runner.app import lanes
from runner.net.bucket import SlidingWindow
from runner.net.limiter import Limiter
from runner.net.shared import SharedSlidingWindow
from runner.store.budget import SharedRateState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AsyncExitStack
    from pathlib import Path

    from runner.manifest.model import Manifest
    from runner.net.limiter import Pacer
    from runner.pipeline.clock import Clock
    from runner.providers.spec import Spec

#: boot id if the system has none; timestamps of an earlier boot are then recognised by lying in the future
_UNNAMED_BOOT = "unnamed"


def build_limiters(
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
    for endpoint, rate in lanes.endpoint_rates(spec, manifest, loopback=loopback).items():
        adapts = manifest.limits.qps is None and endpoint != "upload"
        window = SlidingWindow(rate.count, rate.seconds, ceiling=math.inf if adapts else None)
        pacer = _shared_window(window, account, endpoint, clock, stack, on_warning)
        found[endpoint] = Limiter(pacer, clock.monotonic, anyio.sleep)
    return found


def has_other_processes(limiters: Mapping[str, Limiter]) -> bool:
    """Return True if other runner processes use the account now."""
    pacer = limiters["submit"].pacer
    return isinstance(pacer, SharedSlidingWindow) and pacer.other_processes > 0


def _shared_window(
    window: SlidingWindow,
    account: Path,
    endpoint: str,
    clock: Clock,
    stack: AsyncExitStack,
    on_warning: Callable[[str], None],
) -> Pacer:
    """Return the window with state that the account's processes share.

    If the shared state cannot be opened, warn and return the window alone, because a run need not stop for that.
    """
    boot = _UNNAMED_BOOT if clock.boot.startswith("process-") else clock.boot
    try:
        state = SharedRateState(account / "budget", endpoint, boot)
    except OSError as error:
        reason = f"{account}: {error.strerror or error}"
        on_warning(f"{reason}: the rate is not shared with other runs; RUNNER_HOME names the directory")
        return window
    shared = SharedSlidingWindow(window, state, clock.monotonic, _call_later, on_warning)
    stack.callback(shared.close)
    return shared


def _call_later(seconds: float, call: Callable[[], None]) -> None:
    """Call a function on the running event loop after a delay."""
    asyncio.get_running_loop().call_later(seconds, call)
