"""Waits for leave to send: first come, first served, from a bucket that may be shared with other processes."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

from runner.net.traffic import Slot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import Self

#: seconds of one sleep at the most: another process may have given back what it held
_LONGEST_SLEEP = 1.0


class Pacer(Protocol):
    """What says how fast to send; `net.bucket.Bucket` alone, or shared as in `net.shared`."""

    def grant(self, now: float) -> Slot | float:
        """A slot now, or the time at which to ask again."""

    def sent(self, slot: Slot, stamp: float) -> None: ...

    def answered(self, slot: Slot, rtt: float) -> None: ...

    def release(self, slot: Slot) -> None: ...

    def throttled(self, now: float, wait: float | None = None, slot: Slot | None = None) -> None: ...


class Permit:
    """Leave to send one request; used as a context, it gives an unused slot back."""

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
        """The bytes leave at this time of the limiter's clock."""
        self._limiter.bucket.sent(self._slot, stamp)

    def answered(self, rtt: float) -> None:
        """The reply's head took so long."""
        self._limiter.bucket.answered(self._slot, rtt)

    def throttled(self, wait: float | None = None) -> None:
        """The reply says "too fast", and perhaps for how long."""
        self._limiter.bucket.throttled(self._limiter.now(), wait, self._slot)

    def release(self) -> None:
        """Give the slot back if nothing was sent; harmless otherwise."""
        self._limiter.bucket.release(self._slot)

    async def again(self) -> None:
        """Wait for a further slot: a replay is a request of its own."""
        self._slot = await self._limiter.take()


class _Waiter:
    """Somebody in the queue; woken when a slot is there, or when it is the head that must watch the time."""

    def __init__(self) -> None:
        self.slot: Slot | None = None
        self.woken = asyncio.Event()


class Limiter:
    """Hands out slots in order; the head of the queue alone sleeps, and then serves everyone who is due."""

    def __init__(
        self,
        bucket: Pacer,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.bucket = bucket
        self.now = clock
        self._sleep = sleep
        self._queue: deque[_Waiter] = deque()

    def __repr__(self) -> str:
        return f"Limiter({self.bucket!r}, {len(self._queue)} waiting)"

    async def acquire(self) -> Permit:
        """Wait for leave to send one request."""
        return Permit(self, await self.take())

    async def take(self) -> Slot:
        """The bare slot, for those who keep their own permit."""
        mine = _Waiter()
        self._queue.append(mine)
        try:
            while mine.slot is None:
                await self._wait(mine)
        except BaseException:
            if mine.slot is not None:  # given, and never taken
                self.bucket.release(mine.slot)
            raise
        finally:
            if mine.slot is None:
                self._queue.remove(mine)
            if self._queue:
                self._queue[0].woken.set()
        return mine.slot

    async def _wait(self, mine: _Waiter) -> None:
        if self._queue[0] is not mine:
            await mine.woken.wait()
            mine.woken.clear()
            return
        wait = self._serve()
        if mine.slot is None:
            await self._sleep(min(_LONGEST_SLEEP, wait))

    def _serve(self) -> float:
        """Give a slot to everyone who is due; the seconds until somebody is, 0 where nobody waits any more."""
        while self._queue:
            now = self.now()
            found = self.bucket.grant(now)
            if not isinstance(found, Slot):
                return found - now
            served = self._queue.popleft()
            served.slot = found
            served.woken.set()
        return 0.0


class Window:
    """How many tasks may run; None is no limit. Shrinks when the provider says "full", regrows as tasks complete."""

    def __init__(self, most: int | None = None) -> None:
        #: what the manifest says
        self.most = most
        self._size = most

    def __repr__(self) -> str:
        return f"Window({self._size} of {self.most})"

    @property
    def size(self) -> int | None:
        """How many may run now."""
        return self._size

    def room(self, running: int) -> int | None:
        """How many more may start beside those running; None: as many as you like."""
        return None if self._size is None else max(0, self._size - running)

    def shrink(self, running: int) -> None:
        """The provider refused one more (Kling 1303): what runs now is what fits."""
        self._size = max(1, running if self._size is None else min(self._size, running))

    def completed(self) -> None:
        """One of our own has ended, so one more may fit than was believed."""
        if self._size is not None and self._size != self.most:
            self._size += 1
