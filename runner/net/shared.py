"""A bucket that all processes of an account share: its state stands in a file, and each turn at it takes microseconds.

1. A turn takes the state of the others, does what has happened here since, and leaves the result. What the bucket
   promises, it so promises for all of them together.
2. Nobody waits for a turn. What could not be told yet is told with the next: until then a sent request counts as
   unsent, which is the safe side.
3. Where no turn is to be had for two seconds (a process was stopped in the middle of its own; the disk fails), this
   process goes on alone with what it knows, says so, and comes back.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from runner.net.traffic import Slot

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.net.bucket import Bucket

#: seconds until the next try where another process is at it, and until what is not urgent is told
_AGAIN, _LINGER = 0.001, 0.01
#: seconds without a turn until we go on alone
_ALONE = 2.0
#: seconds between two looks at who is still there, and between two tries of who is alone
_SWEEP = 0.25
#: what is told late at the most
_MOST_PENDING = 1024
_BUSY = "another process holds it"


class Budget(Protocol):
    """What the processes have in common; `store.budget.Budget` is the one."""

    seat: int

    def change(self, work: Callable[[bytes | None, bool], bytes | None]) -> bool: ...

    def forget(self) -> None: ...

    def is_taken(self, seat: int) -> bool: ...

    def close(self) -> None: ...


class SharedBucket:
    """A bucket's words over a budget.

    `later(seconds, call)` calls on the event loop; `notice` hears in words of what a person should know.
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
        self._do(lambda ours: ours.enter())

    def __repr__(self) -> str:
        return f"SharedBucket({self._bucket!r}, seat {self._budget.seat})"

    @property
    def others(self) -> int:
        """How many other processes of the account are there."""
        return len(self._bucket.others)

    def grant(self, now: float) -> Slot | float:
        """A slot now, or the time at which to ask again."""
        found: list[Slot | float] = []

        def ask(ours: Bucket) -> bool:
            left = self._swept(ours, now)
            found.append(ours.grant(now))
            return left or isinstance(found[0], Slot)

        if not self._alone and self._turn(ask):
            return found[0]
        for lost in found:  # there was a turn, but it could not be written down
            if isinstance(lost, Slot):
                self._bucket.release(lost)
        return self._granted_alone(now) if self._alone or self._goes_alone() else now + _AGAIN

    def sent(self, slot: Slot, stamp: float) -> None:
        """Its bytes leave, which is told before they do: it counts, whatever becomes of us."""
        self._do(lambda ours: ours.sent(slot, stamp), soon=slot.stamp is not None)

    def answered(self, slot: Slot, rtt: float) -> None:
        """The reply's head came `rtt` seconds after the stamp."""
        self._do(lambda ours: ours.answered(slot, rtt), soon=True)

    def release(self, slot: Slot) -> None:
        """It was not used; harmless otherwise."""
        if slot.stamp is None:
            self._do(lambda ours: ours.release(slot), soon=True)

    def throttled(self, now: float, wait: float | None = None, slot: Slot | None = None) -> None:
        """The server says "too fast" (to this one): every process of the account pauses, and learns what holds."""
        self._do(lambda ours: ours.throttled(now, wait, slot))

    def close(self) -> None:
        """Leave: what was not sent is the others' to use."""
        if not self._closed:
            self._closed = True
            self._pending.append(lambda ours: ours.leave(ours.seat))
            self._turn()
            self._budget.close()

    def _granted_alone(self, now: float) -> Slot | float:
        granted = self._bucket.grant(now)
        if isinstance(granted, Slot):
            slot = granted
            self._pending.append(lambda ours: ours.adopt(slot))
        self._tell_in(_SWEEP)
        return granted

    def _swept(self, ours: Bucket, now: float) -> bool:
        """Let go of those that have died; whether any had."""
        if now - self._swept_at < _SWEEP:
            return False
        self._swept_at = now
        dead = [seat for seat in ours.others if not self._budget.is_taken(seat)]
        for seat in dead:
            ours.leave(seat)
        return bool(dead)

    def _do(self, act: Callable[[Bucket], None], *, soon: bool = False) -> None:
        """Tell what happened: at once where that can be, or with whatever comes next."""
        self._pending.append(act)
        if self._alone:
            act(self._bucket)
        if self._alone or soon:
            self._tell_in(_LINGER)
        elif not self._turn():
            self._goes_alone()
            self._tell_in(_AGAIN)

    def _goes_alone(self) -> bool:
        """Whether it is time to go on with what we know; then what waits to be told is done here as well."""
        if self._clock() - self._turn_at < _ALONE:
            return False
        self._alone = True
        self._notice(f"the account's rate is not shared with its other processes for now: {self._why}")
        for waiting in self._pending:
            waiting(self._bucket)
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
        """Everything that waits, then this, which says whether it changed anything; False: it was not our turn."""

        def work(data: bytes | None, old: bool) -> bytes | None:
            if data is not None:
                self._bucket.load(data, self._clock(), old=old)
            for waiting in self._pending:
                waiting(self._bucket)
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
            self._budget.forget()  # what is known here is not what stands there
        return done
