"""How fast to send: at most `count` in any sliding window of `seconds`, judged where the requests arrive.

1. A log of stamps. A slot counts from its grant until it is known to have left the window, and an unsent one counts
   as "now": so a stall between grant and write cannot let a burst through.
2. A stamp moves later by what its reply is late against the best round trip seen, at most 250 ms: the request may have
   been that long on its way. While no reply is here, the time that has passed says how late it is at least.
3. A cadence of (1 + 0.5 %) * seconds / count with at most 100 ms of catch-up: no burst after a suspend.

`Bucket` and `Window` are arithmetic: no clock, no I/O. Measured: 0 violations at 97 to 99 % use (performance.md).
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right, insort
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import Self

_MARGIN = 1.005
_CATCH_UP = 0.1
_LATE = 0.25
#: added to the window, as a share of it and at most so many seconds: the best round trip seen is not the best there is
_SLACK, _MOST_SLACK = 0.004, 0.01
#: replies until the best round trip means something; before, the whole of it counts as late
_SAMPLES = 20
#: the best round trip is the best of this many seconds, at least: routes change
_MEMORY = 30.0
#: the slowest that throttling may make us, and what each window gives back, as shares of the configured rate
_SLOWEST, _REGAIN = 1 / 16, 0.1
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.5, 900.0


@dataclass(eq=False, slots=True)
class Slot:
    """Leave for one request; `stamp` is None until its bytes leave."""

    granted: float
    #: when the slot after this one would have been due without it
    due: float
    stamp: float | None = None


class Bucket:
    """The arithmetic: `count` requests (a fraction is fine) in any `seconds`."""

    def __init__(self, count: float, seconds: float = 1.0) -> None:
        if count <= 0 or seconds <= 0:
            raise ValueError("a rate is positive")
        #: whole requests in a window of its own length: 2.5 a second is 2 in 0.8 s
        self._most = max(1, int(count))
        self._window = seconds * self._most / count
        self._cadence = _MARGIN * seconds / count
        self._span = self._window + min(_MOST_SLACK, _SLACK * self._window)
        self._late = min(_LATE, self._window / 4)
        self._log: list[float] = []
        self._open: set[Slot] = set()
        self._due = float("-inf")
        self._latest: Slot | None = None
        self._paused_until = float("-inf")
        self._share, self._since = 1.0, 0.0
        self._best = self._best_before = float("inf")
        self._best_since = float("-inf")
        self._samples = 0

    def __repr__(self) -> str:
        return f"Bucket({self._most} in {self._window:g} s, {len(self._open)} open)"

    def grant(self, now: float) -> Slot | float:
        """A slot now, or the time at which to ask again."""
        self._settle_old(now)
        wait_until = max(self._due, self._paused_until, self._room_at(now))
        if wait_until > now:
            return wait_until
        slot = Slot(now, self._due)
        self._due = max(self._due, now - _CATCH_UP) + self._cadence / self.share(now)
        self._open.add(slot)
        self._latest = slot
        return slot

    def sent(self, slot: Slot, stamp: float) -> None:
        """Its bytes leave; said twice, the later stamp holds."""
        slot.stamp = stamp if slot.stamp is None else max(slot.stamp, stamp)

    def answered(self, slot: Slot, rtt: float) -> None:
        """The reply's head came `rtt` seconds after the stamp."""
        if slot.stamp is None or slot not in self._open:
            return
        self._remember(slot.stamp + rtt, rtt)
        self._close(slot, slot.stamp + min(self._late, max(0.0, rtt - self._best_rtt)))

    def release(self, slot: Slot) -> None:
        """It was not used; if it is the latest, the next one takes its place."""
        if slot.stamp is None and slot in self._open:
            self._open.remove(slot)
            if slot is self._latest:
                self._due = slot.due

    def throttled(self, now: float, wait: float | None = None) -> None:
        """The server says "too fast": pause for `wait` or a window, then half the rate, regained window by window."""
        if now < self._paused_until:
            return  # replies to what was in flight say the same thing again
        pause = self._window if wait is None else wait
        self._share = max(_SLOWEST, self.share(now) / 2)
        self.pause(now + max(_SHORTEST_PAUSE, min(_LONGEST_PAUSE, pause)))
        # at half the rate for a whole window after the pause
        self._since = self._paused_until + self._window

    def pause(self, until: float) -> None:
        """Grant nothing before then."""
        self._paused_until = max(self._paused_until, until)

    def share(self, now: float) -> float:
        """The rate now, as a share of the configured one."""
        if self._share >= 1.0:
            return 1.0
        return min(1.0, self._share + _REGAIN * max(0, int((now - self._since) / self._window)))

    @property
    def _best_rtt(self) -> float:
        return min(self._best, self._best_before) if self._samples >= _SAMPLES else 0.0

    def _remember(self, now: float, rtt: float) -> None:
        if now - self._best_since > max(_MEMORY, 10 * self._window):
            self._best, self._best_before, self._best_since = float("inf"), self._best, now
        self._best = min(self._best, rtt)
        self._samples += 1

    def _room_at(self, now: float) -> float:
        """`now` where the window has room, else the earliest time at which it may have."""
        horizon = now - self._span
        first = bisect_right(self._log, horizon)
        surplus = len(self._log) - first + sum(self._counts_from(slot, now) > horizon for slot in self._open)
        surplus -= self._most - 1
        if surplus <= 0:
            return now
        if first + surplus <= len(self._log):
            return self._log[first + surplus - 1] + self._span
        return now + min(self._cadence, 0.01)  # it depends on replies that are not here yet

    def _counts_from(self, slot: Slot, now: float) -> float:
        """The latest that it may have arrived, as far as is known, less the best way there."""
        if slot.stamp is None:
            return now
        return slot.stamp + max(0.0, min(self._late, now - slot.stamp - self._best_rtt))

    def _settle_old(self, now: float) -> None:
        """Close what can move no further, and forget what left the window."""
        far = now - self._best_rtt - self._late
        for slot, stamp in [(slot, slot.stamp) for slot in self._open if slot.stamp is not None]:
            if stamp < far:
                self._close(slot, stamp + self._late)
        # an open slot may be answered yet and enter the log in the past, so a whole window is kept and no more
        del self._log[: bisect_right(self._log, now - self._span)]

    def _close(self, slot: Slot, stamp: float) -> None:
        self._open.remove(slot)
        insort(self._log, stamp)


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

    def release(self) -> None:
        """Give the slot back if nothing was sent; harmless otherwise."""
        self._limiter.bucket.release(self._slot)

    async def again(self) -> None:
        """Wait for a further slot: a replay is a request of its own."""
        self._slot = await self._limiter.take()


class Limiter:
    """Hands out a bucket's slots first come, first served; the head of the queue alone sleeps."""

    def __init__(
        self,
        bucket: Bucket,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.bucket = bucket
        self._clock = clock
        self._sleep = sleep
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Limiter({self.bucket!r})"

    async def acquire(self) -> Permit:
        """Wait for leave to send one request."""
        return Permit(self, await self.take())

    def throttled(self, wait: float | None = None) -> None:
        """The server says "too fast", and perhaps for how long."""
        self.bucket.throttled(self._clock(), wait)

    async def take(self) -> Slot:
        """The bare slot, for those who keep their own permit."""
        async with self._turn:
            while True:
                now = self._clock()
                found = self.bucket.grant(now)
                if isinstance(found, Slot):
                    return found
                await self._sleep(found - now)


class Window:
    """How many tasks may run; None is no limit. Shrinks when the provider says "full", regrows as tasks complete."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._size = most

    def __repr__(self) -> str:
        return f"Window({self._size} of {self._most})"

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
        if self._size is not None and self._size != self._most:
            self._size += 1
