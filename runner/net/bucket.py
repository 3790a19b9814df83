"""How fast to send: at most so many in any sliding window, judged where the requests arrive.

1. A log of stamps (traffic.py). A slot counts from its grant until it is known to have left the window, and an unsent
   one counts as "now": so a stall between grant and write cannot let a burst through.
2. A stamp counts later by what its reply was late (lateness.py). While no reply is here, the time that has passed
   says how late it is at least.
3. A cadence of (1 + 0.5 %) / rate with at most 100 ms of catch-up: no burst after a suspend.
4. The rate is the one that holds (pace.py).

Arithmetic: no clock, no I/O. `dump` and `load` hand the whole of it to another process of the account (shared.py),
whose slots are told apart by the `seat` that each of them has.
"""

from __future__ import annotations

from array import array
from dataclasses import replace
from itertools import accumulate, chain, count, pairwise
from typing import TYPE_CHECKING, NamedTuple

from runner.net.lateness import Lateness
from runner.net.pace import Pace
from runner.net.traffic import MOST, UNKNOWN, Slot, Traffic

if TYPE_CHECKING:
    from collections.abc import Sequence

_MARGIN = 1.005
_CATCH_UP = 0.1
#: seconds until the next question where only a reply can tell, at the most
_SOON = 0.01
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.5, 900.0
#: how the state is handed on: this form, in so many parts
_VERSION, _PARTS = 1.0, 7
_NEVER = float("-inf")


class Wish(NamedTuple):
    """What one process wishes for: requests a second to begin with and at the most, judged by windows of `unit` s."""

    start: float
    ceiling: float
    unit: float


class Bucket:
    """The arithmetic: `number` requests (a fraction is fine) in any `seconds`.

    With a `ceiling` (requests a second) they are where it begins, and it finds out how much more the server takes. Of
    several processes the one that wishes for most decides for the account, and each keeps to its own rate.
    """

    def __init__(self, number: float, seconds: float = 1.0, *, ceiling: float | None = None, seat: int = 0) -> None:
        if number <= 0 or seconds <= 0:
            raise ValueError("a rate is positive")
        rate = number / seconds
        self._wish = Wish(rate, rate if ceiling is None else max(rate, ceiling), seconds)
        self.seat = seat
        self._numbers = count()
        self._own_due = _NEVER
        self._clear()

    def _clear(self) -> None:
        self._due = self._paused_until = _NEVER
        self._latest = (-1, -1)
        self._late, self._pace = Lateness(), Pace()
        self._traffic = Traffic(self._late)
        self._wishes = {self.seat: self._wish}
        self._joint = self._wish

    def __repr__(self) -> str:
        return f"Bucket({self._joint.start:g} a second, {len(self._traffic)} open)"

    # the way of a slot

    def grant(self, now: float) -> Slot | float:
        """A slot now, or the time at which to ask again."""
        rate = self.rate(now)
        most, window = self._limit(rate)
        self._traffic.settle(now, window, window + self._joint.unit)
        room_at = self._traffic.room_at(now, most, window)
        if room_at == UNKNOWN:
            room_at = now + min(_SOON, _MARGIN / rate)
        wait_until = max(self._due, self._own_due, self._paused_until, room_at)
        if wait_until > now:
            return wait_until
        slot = Slot(self.seat, next(self._numbers), now, self._due, pressed=self._due > now - _CATCH_UP)
        self._due = max(self._due, now - _CATCH_UP) + _MARGIN / rate
        if self._wish.ceiling < rate:
            self._own_due = max(self._own_due, now - _CATCH_UP) + _MARGIN / self._wish.ceiling
        self._traffic.add(slot)
        self._latest = slot.key
        return slot

    def sent(self, slot: Slot, stamp: float) -> None:
        """Its bytes leave; said twice, the later stamp holds."""
        self._traffic.sent(slot, stamp)

    def answered(self, slot: Slot, rtt: float) -> None:
        """The reply's head came `rtt` seconds after the stamp."""
        if slot.stamp is None:
            return
        now = slot.stamp + rtt
        most, window = self._limit(self.rate(now))
        self._traffic.answered(slot, rtt, window)
        self._late.heard(now, rtt, window, most)
        if slot.pressed:
            self._pace.accepted(most, self._joint.start, self._joint.ceiling)

    def release(self, slot: Slot) -> None:
        """It was not used; if it is the latest, the next one takes its place."""
        if slot.stamp is None and self._traffic.drop(slot) and slot.key == self._latest:
            self._due = slot.due

    # what the server says

    def throttled(self, now: float, wait: float | None = None, slot: Slot | None = None) -> None:
        """The server says "too fast" (to this one): pause for `wait` or a window, and learn what holds."""
        start, ceiling, unit = self._joint
        at = slot.stamp if slot is not None and slot.stamp is not None else now
        self._traffic.refused(at)

        def accepted(seconds: float) -> float:
            return self._traffic.taken(at, seconds, unit)

        if (slot.granted if slot else now) < self._paused_until:
            self._pace.refused_too(accepted)
            return
        pause = self._pace.refused(now, unit, accepted, start, ceiling)
        self.pause(now + max(_SHORTEST_PAUSE, min(_LONGEST_PAUSE, pause if wait is None else wait)))
        self._pace.resumes(self._paused_until, self._limit(self._pace.target(start, ceiling))[1])

    def pause(self, until: float) -> None:
        """Grant nothing before then."""
        self._paused_until = max(self._paused_until, until)

    def rate(self, now: float) -> float:
        """Requests a second, as far as it is known what holds."""
        return self._pace.rate(now, self._joint.start, self._joint.ceiling)

    def _limit(self, rate: float) -> tuple[int, float]:
        """Whole requests in a window of its own length: 2.5 a second is 2 in 0.8 s, 6,000 a minute 1,024 in 10 s."""
        most = max(1, min(MOST, int(rate * self._joint.unit + 1e-9)))
        return most, most / rate

    # several processes

    @property
    def others(self) -> list[int]:
        """The seats of the account's other processes."""
        return [seat for seat in self._wishes if seat != self.seat]

    def enter(self) -> None:
        """Take the seat of whoever had it before."""
        self.leave(self.seat)
        self._wishes[self.seat] = self._wish
        self._join()

    def leave(self, seat: int) -> None:
        """That process is gone: what it had not sent never will be."""
        self._traffic.leave(seat, self._joint.unit)
        self._wishes.pop(seat, None)
        self._join()

    def adopt(self, slot: Slot) -> None:
        """A slot of ours that was granted while nobody could be told."""
        self._traffic.add(replace(slot, stamp=None))

    def _join(self) -> None:
        wishes = self._wishes.values() or [self._wish]
        greatest = max(wishes, key=lambda wish: (wish.start, -wish.unit))
        self._joint = Wish(greatest.start, max(wish.ceiling for wish in wishes), greatest.unit)

    def dump(self) -> bytes:
        """Everything that another process needs, as doubles."""
        wishes = [value for seat, wish in self._wishes.items() for value in (seat, *wish)]
        times = (self._due, self._paused_until, *self._latest)
        small = (self._pace.values(), times, self._late.values(), wishes)
        large = self._traffic.values()
        values = array("d", chain((_VERSION,), map(len, (*small, *large)), *small))
        for part in large:
            values.extend(part)
        return values.tobytes()

    def load(self, data: bytes, now: float, *, old: bool = False) -> None:
        """Go on where another process was; of an earlier boot, only with what was learned. Unreadable is nothing."""
        self._clear()
        values = array("d")
        values.frombytes(data[: len(data) - len(data) % values.itemsize])
        sizes = [int(size) for size in values[1 : 1 + _PARTS]]
        if len(sizes) < _PARTS or values[0] != _VERSION or len(values) != 1 + _PARTS + sum(sizes):
            return
        ends = list(accumulate(sizes, initial=1 + _PARTS))
        pace, times, late, wishes, log, sends, slots = (values[begin:end] for begin, end in pairwise(ends))
        old = old or (len(sends) > 0 and sends[-1] > now + 1.0)  # sent in the future, so before a restart
        self._pace.take(pace, old=old)
        if not old:
            self._late.take(late)
            self._take(times, wishes)
            self._traffic.take(log, sends, slots)

    def _take(self, times: Sequence[float], wishes: Sequence[float]) -> None:
        self._due, self._paused_until = times[:2]
        self._latest = int(times[2]), int(times[3])
        for at in range(0, len(wishes), 4):
            self._wishes[int(wishes[at])] = Wish(*wishes[at + 1 : at + 4])
        self._wishes[self.seat] = self._wish
        self._join()
