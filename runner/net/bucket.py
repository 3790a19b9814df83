"""Sliding-window rate limit, measured at the server: at most n requests arrive in any window.

1. A log of send times (`RequestLog`). A slot counts from its grant until it is certain to have left the window. An
   unsent slot counts as "now", so a stall between grant and write cannot let a burst through.
2. A request counts as arriving later by the delay that its reply shows (`DelayEstimator`). While there is no reply, the
   elapsed time is the lower bound.
3. Grants are spaced by (1 + 0.5 %) / rate, with at most 100 ms of catch-up, so there is no burst after a suspend.
4. The rate is the one that the server sustains (`RateController`).

All of it is arithmetic, without a clock and without I/O. `dump` and `load` transfer the whole state between the
processes of an account (`SharedSlidingWindow`). Each process marks its slots with its `process_slot`.
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
#: maximum seconds until the next attempt when only a reply can free a place
_SOON = 0.01
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.5, 900.0
#: version of the dumped state, and the number of its parts
_VERSION, _PARTS = 1.0, 7
_NEVER = float("-inf")


class Wish(NamedTuple):
    """Rate that one process wants: first and maximum requests per second, measured in windows of `unit` seconds."""

    start: float
    ceiling: float
    unit: float


class Bucket:
    """Sliding-window limit of `number` requests, possibly a fraction, in any `seconds`.

    With a `ceiling` (requests per second) this is only the first rate, and the limit rises to what the server accepts.
    Among several processes the highest target decides for the account, and each process keeps to its own ceiling.
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
        return f"SlidingWindow({self._joint.start:g} a second, {len(self._traffic)} open)"

    # life of a slot

    def grant(self, now: float) -> Slot | float:
        """Return a slot, or the time at which to ask again."""
        rate = self.rate(now)
        maximum, window = self._limit(rate)
        self._traffic.settle(now, window, window + self._joint.unit)
        available_at = self._traffic.room_at(now, maximum, window)
        if available_at == UNKNOWN:
            available_at = now + min(_SOON, _MARGIN / rate)
        wait_until = max(self._due, self._own_due, self._paused_until, available_at)
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
        """Record that the slot's bytes leave at `stamp`; the later of two stamps holds."""
        self._traffic.sent(slot, stamp)

    def answered(self, slot: Slot, rtt: float) -> None:
        """Record that the reply's headers arrived `rtt` seconds after the stamp."""
        if slot.stamp is None:
            return
        now = slot.stamp + rtt
        maximum, window = self._limit(self.rate(now))
        self._traffic.answered(slot, rtt, window)
        self._late.heard(now, rtt, window, maximum)
        if slot.pressed:
            self._pace.accepted(maximum, self._joint.start, self._joint.ceiling)

    def release(self, slot: Slot) -> None:
        """Give an unused slot back; if it is the latest, the next slot takes its place."""
        if slot.stamp is None and self._traffic.drop(slot) and slot.key == self._latest:
            self._due = slot.due

    # rate limiting by the server

    def throttled(self, now: float, wait: float | None = None, slot: Slot | None = None) -> None:
        """Pause after the server refused a request (the one of `slot`) as too fast, and adapt the rate.

        `wait` is the pause in seconds that the server asked for; by default it is a window, longer with each refusal
        in a row.
        """
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
        """Grant nothing before `until`."""
        self._paused_until = max(self._paused_until, until)

    def rate(self, now: float) -> float:
        """Return the current rate in requests per second."""
        return self._pace.rate(now, self._joint.start, self._joint.ceiling)

    def _limit(self, rate: float) -> tuple[int, float]:
        """Return a whole number of requests and the window in seconds that together make `rate`.

        2.5 per second is 2 in 0.8 s, 6,000 per minute is 1,024 in 10 s.
        """
        maximum = max(1, min(MOST, int(rate * self._joint.unit + 1e-9)))
        return maximum, maximum / rate

    # several processes of one account

    @property
    def others(self) -> list[int]:
        """Return the process slots of the account's other processes."""
        return [process for process in self._wishes if process != self.seat]

    def enter(self) -> None:
        """Take over the process slot from the process that had it before."""
        self.leave(self.seat)
        self._wishes[self.seat] = self._wish
        self._join()

    def leave(self, seat: int) -> None:
        """Remove a process and the slots that it has not used."""
        self._traffic.leave(seat, self._joint.unit)
        self._wishes.pop(seat, None)
        self._join()

    def adopt(self, slot: Slot) -> None:
        """Add an own slot that was granted while the shared state was not available."""
        self._traffic.add(replace(slot, stamp=None))

    def _join(self) -> None:
        targets = self._wishes.values() or [self._wish]
        highest = max(targets, key=lambda target: (target.start, -target.unit))
        self._joint = Wish(highest.start, max(target.ceiling for target in targets), highest.unit)

    def dump(self) -> bytes:
        """Return the whole state for another process, as doubles."""
        targets = [value for process, target in self._wishes.items() for value in (process, *target)]
        times = (self._due, self._paused_until, *self._latest)
        small = (self._pace.values(), times, self._late.values(), targets)
        large = self._traffic.values()
        values = array("d", chain((_VERSION,), map(len, (*small, *large)), *small))
        for part in large:
            values.extend(part)
        return values.tobytes()

    def load(self, data: bytes, now: float, *, old: bool = False) -> None:
        """Replace the state by that of another process.

        With `earlier_boot`, only the learned rate is taken. Unreadable data resets the state.
        """
        self._clear()
        values = array("d")
        values.frombytes(data[: len(data) - len(data) % values.itemsize])
        sizes = [int(size) for size in values[1 : 1 + _PARTS]]
        if len(sizes) < _PARTS or values[0] != _VERSION or len(values) != 1 + _PARTS + sum(sizes):
            return
        ends = list(accumulate(sizes, initial=1 + _PARTS))
        controller, times, delay, targets, closed, sends, slots = (values[begin:end] for begin, end in pairwise(ends))
        old = old or (len(sends) > 0 and sends[-1] > now + 1.0)  # sent in the future, so before a restart
        self._pace.take(controller, old=old)
        if not old:
            self._late.take(delay)
            self._take(times, targets)
            self._traffic.take(closed, sends, slots)

    def _take(self, times: Sequence[float], targets: Sequence[float]) -> None:
        self._due, self._paused_until = times[:2]
        self._latest = int(times[2]), int(times[3])
        for at in range(0, len(targets), 4):
            self._wishes[int(targets[at])] = Wish(*targets[at + 1 : at + 4])
        self._wishes[self.seat] = self._wish
        self._join()
