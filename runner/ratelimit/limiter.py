"""First-come, first-served waiting for permits of a rate limit, and the limit on tasks in flight."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

from runner.ratelimit.window import Slot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import Self

#: maximum seconds of one sleep, since another process may give slots back at any time
_MAX_SLEEP = 1.0


class RateLimit(Protocol):
    """Rate limit that grants slots: a `SlidingWindow`, or a `SharedSlidingWindow` for several processes."""

    def grant(self, now: float) -> Slot | float:
        """Return a slot, or the time at which to ask again."""

    def sent(self, slot: Slot, stamp: float) -> None: ...

    def answered(self, slot: Slot, rtt: float) -> None: ...

    def release(self, slot: Slot) -> None: ...

    def throttled(self, now: float, wait: float | None = None, slot: Slot | None = None) -> None: ...


class Permit:
    """Permission to send one request; as a context manager, it gives an unused slot back at the end."""

    def __init__(self, limiter: Limiter, slot: Slot) -> None:
        self._limiter = limiter
        self._slot = slot

    def __repr__(self) -> str:
        return f"Permit({'unsent' if self._slot.stamp is None else 'sent'})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def sent(self, stamp: float) -> None:
        """Record that the request's bytes leave at `stamp` of the limiter's clock."""
        self._limiter.rate_limit.sent(self._slot, stamp)

    def answered(self, rtt: float) -> None:
        """Record that the reply's headers arrived `rtt` seconds after the bytes left."""
        self._limiter.rate_limit.answered(self._slot, rtt)

    def throttled(self, wait: float | None = None) -> None:
        """Record that the server refused the request as too fast, and asked for a pause of `wait` seconds if given."""
        self._limiter.rate_limit.throttled(self._limiter.now(), wait, self._slot)

    def release(self) -> None:
        """Give the slot back if nothing was sent; do nothing otherwise."""
        self._limiter.rate_limit.release(self._slot)

    async def reacquire(self) -> None:
        """Wait for another slot, since a replay counts as a request of its own."""
        self._slot = await self._limiter.acquire_slot()


class _Waiter:
    """Queued caller; woken when it gets a slot, or when it becomes the head of the queue."""

    def __init__(self) -> None:
        self.slot: Slot | None = None
        self.woken = asyncio.Event()


class Limiter:
    """Queue for slots of a `RateLimit`; only the head of the queue sleeps, and then serves every waiter that is due.

    `clock` returns seconds and `sleep` waits for seconds.
    """

    def __init__(
        self,
        rate_limit: RateLimit,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.rate_limit = rate_limit
        self.now = clock
        self._sleep = sleep
        self._queue: deque[_Waiter] = deque()

    def __repr__(self) -> str:
        return f"Limiter({self.rate_limit!r}, {len(self._queue)} waiting)"

    async def acquire(self) -> Permit:
        """Wait for a permit to send one request."""
        return Permit(self, await self.acquire_slot())

    async def acquire_slot(self) -> Slot:
        """Wait for a slot without wrapping it in a Permit."""
        waiter = _Waiter()
        self._queue.append(waiter)
        try:
            while waiter.slot is None:
                if self._queue[0] is not waiter:
                    await waiter.woken.wait()
                    waiter.woken.clear()
                    continue
                wait = self._grant_due()
                if waiter.slot is None:
                    await self._sleep(min(_MAX_SLEEP, wait))
        except BaseException:
            if waiter.slot is not None:  # granted while the caller was cancelled
                self.rate_limit.release(waiter.slot)
            raise
        finally:
            if waiter.slot is None:
                self._queue.remove(waiter)
            if self._queue:
                self._queue[0].woken.set()
        return waiter.slot

    def _grant_due(self) -> float:
        """Give a slot to every waiter that is due; return the seconds until the next one is, or 0 if none waits."""
        while self._queue:
            now = self.now()
            granted = self.rate_limit.grant(now)
            if not isinstance(granted, Slot):
                return granted - now
            waiter = self._queue.popleft()
            waiter.slot = granted
            waiter.woken.set()
        return 0.0


class InFlightWindow:
    """Limit on the tasks in flight at a provider, None for no limit.

    It shrinks when the provider refuses a task for lack of capacity, and grows again as tasks complete.
    """

    def __init__(self, maximum: int | None = None) -> None:
        #: limit of the manifest
        self.maximum = maximum
        self._size = maximum

    def __repr__(self) -> str:
        return f"InFlightWindow({self._size} of {self.maximum})"

    @property
    def size(self) -> int | None:
        """Return the present limit."""
        return self._size

    def available(self, running: int) -> int | None:
        """Return how many more tasks may start, or None if unlimited."""
        return None if self._size is None else max(0, self._size - running)

    def shrink(self, running: int) -> None:
        """Lower the limit to the running tasks, since the provider refused one more (Kling: code 1303)."""
        self._size = max(1, running if self._size is None else min(self._size, running))

    def grow(self) -> None:
        """Raise a lowered limit by one after a task of this run has ended."""
        if self._size is not None and self._size != self.maximum:
            self._size += 1
