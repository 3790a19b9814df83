"""Rate limit shared by all processes of an account, with its state in a file that is locked for microseconds.

1. An update loads the state of the other processes, applies what has happened in this process since, and stores the
   result. So the limit holds for all processes together.
2. An update never waits for the lock. Changes that could not be stored are stored with the next update. Until then a
   sent request counts as unsent, which is the safe side.
3. If no update succeeds for two seconds (a process was stopped while it held the lock, or the disk fails), this process
   continues alone with the state that it has, reports a warning, and returns to the shared state later.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from runner.net.traffic import Slot

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.net.bucket import Bucket

#: seconds until the next attempt if another process holds the lock, and until a change that is not urgent is stored
_AGAIN, _LINGER = 0.001, 0.01
#: seconds without an update after which this process continues alone
_ALONE = 2.0
#: seconds between two checks for ended processes, and between two attempts of a process that continues alone
_SWEEP = 0.25
#: maximum number of changes that are stored later
_MOST_PENDING = 1024
_BUSY = "another process holds it"


class Budget(Protocol):
    """State in a file that the processes of an account share; implemented by the store's `SharedRateState`."""

    seat: int

    def change(self, work: Callable[[bytes | None, bool], bytes | None]) -> bool: ...

    def forget(self) -> None: ...

    def is_taken(self, seat: int) -> bool: ...

    def close(self) -> None: ...


class SharedBucket:
    """Sliding window whose state is shared through a `RateStateFile`; has the methods of a `Pacer`.

    `call_later(seconds, call)` schedules a call on the event loop. `on_warning` is called with a text for the user.
    """

    def __init__(
        self,
        bucket: Bucket,
        budget: Budget,
        clock: Callable[[], float],
        later: Callable[[float, Callable[[], None]], object],
        notice: Callable[[str], None],
    ) -> None:
        bucket.seat = budget.seat
        self._bucket, self._budget = bucket, budget
        self._clock, self._later, self._notice = clock, later, notice
        self._pending: deque[Callable[[Bucket], None]] = deque(maxlen=_MOST_PENDING)
        self._called = self._closed = self._alone = False
        self._why = _BUSY
        self._turn_at = clock()
        self._swept_at = float("-inf")
        self._do(lambda window: window.enter())

    def __repr__(self) -> str:
        return f"SharedSlidingWindow({self._bucket!r}, process slot {self._budget.seat})"

    @property
    def others(self) -> int:
        """Return the number of the account's other processes."""
        return len(self._bucket.others)

    def grant(self, now: float) -> Slot | float:
        """Return a slot, or the time at which to ask again."""
        results: list[Slot | float] = []

        def ask(window: Bucket) -> bool:
            has_removed = self._swept(window, now)
            results.append(window.grant(now))
            return has_removed or isinstance(results[0], Slot)

        if not self._alone and self._turn(ask):
            return results[0]
        for lost in results:  # the update was made, but could not be stored
            if isinstance(lost, Slot):
                self._bucket.release(lost)
        if not self._alone and not self._goes_alone():
            return now + _AGAIN
        granted = self._bucket.grant(now)
        if isinstance(granted, Slot):
            slot = granted
            self._pending.append(lambda window: window.adopt(slot))
        self._tell_in(_SWEEP)
        return granted

    def sent(self, slot: Slot, stamp: float) -> None:
        """Record that the slot's bytes leave, before they do, so that the request counts even if this process dies."""
        self._do(lambda window: window.sent(slot, stamp), soon=slot.stamp is not None)

    def answered(self, slot: Slot, rtt: float) -> None:
        """Record that the reply's headers arrived `rtt` seconds after the stamp."""
        self._do(lambda window: window.answered(slot, rtt), soon=True)

    def release(self, slot: Slot) -> None:
        """Give an unused slot back; do nothing for a used one."""
        if slot.stamp is None:
            self._do(lambda window: window.release(slot), soon=True)

    def throttled(self, now: float, wait: float | None = None, slot: Slot | None = None) -> None:
        """Pause every process of the account after the server refused a request as too fast, and adapt the rate."""
        self._do(lambda window: window.throttled(now, wait, slot))

    def close(self) -> None:
        """Leave the account and give the unused slots to its other processes."""
        if not self._closed:
            self._closed = True
            self._pending.append(lambda window: window.leave(window.seat))
            self._turn()
            self._budget.close()

    def _swept(self, window: Bucket, now: float) -> bool:
        """Remove the processes that have ended; return True if there were any."""
        if now - self._swept_at < _SWEEP:
            return False
        self._swept_at = now
        dead = [process for process in window.others if not self._budget.is_taken(process)]
        for process in dead:
            window.leave(process)
        return bool(dead)

    def _do(self, act: Callable[[Bucket], None], *, soon: bool = False) -> None:
        """Apply a change to the shared state: at once, or shortly if it may wait (`soon`) or no update is possible."""
        self._pending.append(act)
        if self._alone:
            act(self._bucket)
        if self._alone or soon:
            self._tell_in(_LINGER)
        elif not self._turn():
            self._goes_alone()
            self._tell_in(_AGAIN)

    def _goes_alone(self) -> bool:
        """Continue without the shared state if there was no update for too long; return True if so.

        Pending changes are then applied to the local state.
        """
        if self._clock() - self._turn_at < _ALONE:
            return False
        self._alone = True
        self._notice(f"the account's rate is not shared with its other processes for now: {self._why}")
        for change in self._pending:
            change(self._bucket)
        return True

    def _tell_in(self, seconds: float) -> None:
        if not self._called:
            self._called = True
            self._later(_SWEEP if self._alone else seconds, self._tell)

    def _tell(self) -> None:
        self._called = False
        if not self._closed and self._pending and not self._turn():
            self._tell_in(_AGAIN)

    def _turn(self, act: Callable[[Bucket], bool] = lambda _: False) -> bool:
        """Apply pending changes and then `act` to the shared state; return False if that was not possible.

        `act` returns True if it changed anything.
        """

        def work(data: bytes | None, old: bool) -> bytes | None:
            if data is not None:
                self._bucket.load(data, self._clock(), old=old)
            for change in self._pending:
                change(self._bucket)
            changed = act(self._bucket) or bool(self._pending)
            return self._bucket.dump() if changed else None

        try:
            done = self._budget.change(work)
        except OSError as error:
            self._why, done = str(error), False
        if done:
            self._pending.clear()
            self._turn_at, self._alone, self._why = self._clock(), False, _BUSY
        elif self._alone or self._why is not _BUSY:
            self._budget.forget()  # the local state differs from the file, so the next update must load it
        return done
