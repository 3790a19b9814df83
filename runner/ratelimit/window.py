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
from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, replace
from itertools import accumulate, chain, count, pairwise
from typing import NamedTuple

from runner.ratelimit.controller import RateController
from runner.ratelimit.delay import DelayEstimator

#: maximum requests in a window, and maximum send times that are remembered
MAX_REQUESTS = 1024
#: a time that depends on replies which have not arrived yet
UNKNOWN = float("inf")
#: doubles per slot in the dumped state
_SLOT_FIELDS = 5
#: factor of the interval between two grants
_MARGIN = 1.005
#: maximum seconds of missed grants that are made up for
_CATCH_UP = 0.1
#: maximum seconds until the next attempt when only a reply can free a place
_MAX_REPLY_WAIT = 0.01
#: bounds in seconds of the pause after a refusal
_MIN_PAUSE, _MAX_PAUSE = 0.5, 900.0
#: version of the dumped state, and the number of its parts
_VERSION, _PARTS = 1.0, 7
_NEVER = float("-inf")


class RateTarget(NamedTuple):
    """Rate that one process wants: first and maximum requests per second, measured in windows of `unit` seconds."""

    start: float
    ceiling: float
    unit: float


@dataclass(eq=False, slots=True)
class Slot:
    """Permission to send one request; `stamp` is None until its bytes leave. Times are in seconds."""

    #: process slot of the process that holds it
    process_slot: int
    #: number within that process
    number: int
    granted_at: float
    #: time at which the next slot would have been due without this one
    due: float
    stamp: float | None = None
    #: True if the slot was waited for, so that its success shows that the rate holds
    at_full_rate: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """Return the identity of the slot among all processes."""
        return self.process_slot, self.number


class SlidingWindow:
    """Sliding-window limit of `number` requests, possibly a fraction, in any `seconds`.

    With a `ceiling` (requests per second) this is only the first rate, and the limit rises to what the server accepts.
    Among several processes the highest target decides for the account, and each process keeps to its own ceiling.
    """

    def __init__(
        self, number: float, seconds: float = 1.0, *, ceiling: float | None = None, process_slot: int = 0
    ) -> None:
        if number <= 0 or seconds <= 0:
            raise ValueError("a rate is positive")
        rate = number / seconds
        self._target = RateTarget(rate, rate if ceiling is None else max(rate, ceiling), seconds)
        self.process_slot = process_slot
        self._numbers = count()
        self._own_next_due = _NEVER
        self._reset()

    def _reset(self) -> None:
        self._next_due = self._paused_until = _NEVER
        self._latest_key = (-1, -1)
        self._delay, self._controller = DelayEstimator(), RateController()
        self._requests = RequestLog(self._delay)
        self._targets = {self.process_slot: self._target}
        self._account_target = self._target

    def __repr__(self) -> str:
        return f"SlidingWindow({self._account_target.start:g} a second, {len(self._requests)} open)"

    # life of a slot

    def grant(self, now: float) -> Slot | float:
        """Return a slot, or the time at which to ask again."""
        rate = self.rate(now)
        maximum, window = self._window_limit(rate)
        self._requests.prune(now, window, window + self._account_target.unit)
        available_at = self._requests.available_at(now, maximum, window)
        if available_at == UNKNOWN:
            available_at = now + min(_MAX_REPLY_WAIT, _MARGIN / rate)
        wait_until = max(self._next_due, self._own_next_due, self._paused_until, available_at)
        if wait_until > now:
            return wait_until
        slot = Slot(
            self.process_slot, next(self._numbers), now, self._next_due, at_full_rate=self._next_due > now - _CATCH_UP
        )
        self._next_due = max(self._next_due, now - _CATCH_UP) + _MARGIN / rate
        if self._target.ceiling < rate:
            self._own_next_due = max(self._own_next_due, now - _CATCH_UP) + _MARGIN / self._target.ceiling
        self._requests.add(slot)
        self._latest_key = slot.key
        return slot

    def sent(self, slot: Slot, stamp: float) -> None:
        """Record that the slot's bytes leave at `stamp`; the later of two stamps holds."""
        self._requests.sent(slot, stamp)

    def answered(self, slot: Slot, rtt: float) -> None:
        """Record that the reply's headers arrived `rtt` seconds after the stamp."""
        if slot.stamp is None:
            return
        now = slot.stamp + rtt
        maximum, window = self._window_limit(self.rate(now))
        self._requests.answered(slot, rtt, window)
        self._delay.record_reply(now, rtt, window, maximum)
        if slot.at_full_rate:
            self._controller.record_accepted(maximum, self._account_target.start, self._account_target.ceiling)

    def release(self, slot: Slot) -> None:
        """Give an unused slot back; if it is the latest, the next slot takes its place."""
        if slot.stamp is None and self._requests.drop(slot) and slot.key == self._latest_key:
            self._next_due = slot.due

    # rate limiting by the server

    def throttled(self, now: float, wait: float | None = None, slot: Slot | None = None) -> None:
        """Pause after the server refused a request (the one of `slot`) as too fast, and adapt the rate.

        `wait` is the pause in seconds that the server asked for; by default it is a window, longer with each refusal
        in a row.
        """
        start, ceiling, unit = self._account_target
        at = slot.stamp if slot is not None and slot.stamp is not None else now
        self._requests.mark_refused(at)

        def accepted(seconds: float) -> float:
            return self._requests.accepted_rate(at, seconds, unit)

        if (slot.granted_at if slot else now) < self._paused_until:
            self._controller.refine(accepted)
            return
        pause = self._controller.back_off(now, unit, accepted, start, ceiling)
        self.pause(now + max(_MIN_PAUSE, min(_MAX_PAUSE, pause if wait is None else wait)))
        self._controller.resume_at(self._paused_until, self._window_limit(self._controller.target(start, ceiling))[1])

    def pause(self, until: float) -> None:
        """Grant nothing before `until`."""
        self._paused_until = max(self._paused_until, until)

    def rate(self, now: float) -> float:
        """Return the current rate in requests per second."""
        return self._controller.rate(now, self._account_target.start, self._account_target.ceiling)

    def _window_limit(self, rate: float) -> tuple[int, float]:
        """Return a whole number of requests and the window in seconds that together make `rate`.

        2.5 per second is 2 in 0.8 s, 6,000 per minute is 1,024 in 10 s.
        """
        maximum = max(1, min(MAX_REQUESTS, int(rate * self._account_target.unit + 1e-9)))
        return maximum, maximum / rate

    # several processes of one account

    @property
    def other_processes(self) -> list[int]:
        """Return the process slots of the account's other processes."""
        return [process for process in self._targets if process != self.process_slot]

    def join(self) -> None:
        """Take over the process slot from the process that had it before."""
        self.leave(self.process_slot)
        self._targets[self.process_slot] = self._target
        self._update_account_target()

    def leave(self, process_slot: int) -> None:
        """Remove a process and the slots that it has not used."""
        self._requests.leave(process_slot, self._account_target.unit)
        self._targets.pop(process_slot, None)
        self._update_account_target()

    def adopt(self, slot: Slot) -> None:
        """Add an own slot that was granted while the shared state was not available."""
        self._requests.add(replace(slot, stamp=None))

    def _update_account_target(self) -> None:
        targets = self._targets.values() or [self._target]
        highest = max(targets, key=lambda target: (target.start, -target.unit))
        self._account_target = RateTarget(highest.start, max(target.ceiling for target in targets), highest.unit)

    def dump(self) -> bytes:
        """Return the whole state for another process, as doubles."""
        targets = [value for process, target in self._targets.items() for value in (process, *target)]
        times = (self._next_due, self._paused_until, *self._latest_key)
        small = (self._controller.state(), times, self._delay.state(), targets)
        large = self._requests.state()
        values = array("d", chain((_VERSION,), map(len, (*small, *large)), *small))
        for part in large:
            values.extend(part)
        return values.tobytes()

    def load(self, data: bytes, now: float, *, earlier_boot: bool = False) -> None:
        """Replace the state by that of another process.

        With `earlier_boot`, only the learned rate is taken. Unreadable data resets the state.
        """
        self._reset()
        values = array("d")
        values.frombytes(data[: len(data) - len(data) % values.itemsize])
        sizes = [int(size) for size in values[1 : 1 + _PARTS]]
        if len(sizes) < _PARTS or values[0] != _VERSION or len(values) != 1 + _PARTS + sum(sizes):
            return
        ends = list(accumulate(sizes, initial=1 + _PARTS))
        controller, times, delay, targets, closed, sends, slots = (values[begin:end] for begin, end in pairwise(ends))
        # a request that was sent in the future was sent before a restart of the machine
        earlier_boot = earlier_boot or (len(sends) > 0 and sends[-1] > now + 1.0)
        self._controller.restore(controller, earlier_boot=earlier_boot)
        if earlier_boot:
            return
        self._delay.restore(delay)
        self._next_due, self._paused_until = times[:2]
        self._latest_key = int(times[2]), int(times[3])
        for at in range(0, len(targets), 4):
            self._targets[int(targets[at])] = RateTarget(*targets[at + 1 : at + 4])
        self._targets[self.process_slot] = self._target
        self._update_account_target()
        self._requests.restore(closed, sends, slots)


class RequestLog:
    """Open slots, the assumed arrival times of closed ones, and the plain send times.

    `window` is in seconds. `delay` estimates the time between the sending and the arrival of a request.
    """

    def __init__(self, delay: DelayEstimator) -> None:
        self._delay = delay
        self._closed = array("d")
        self._send_times = array("d")
        self._open: dict[tuple[int, int], Slot] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, slot: Slot) -> bool:
        return slot.key in self._open

    def add(self, slot: Slot) -> None:
        """Add an open slot."""
        self._open[slot.key] = slot

    def drop(self, slot: Slot) -> bool:
        """Remove a slot that will not be used; return False if it is not in the log any more."""
        return self._open.pop(slot.key, None) is not None

    def sent(self, slot: Slot, stamp: float) -> None:
        """Record that the slot's bytes leave at `stamp`; the later of two stamps holds."""
        before, slot.stamp = slot.stamp, stamp if slot.stamp is None else max(slot.stamp, stamp)
        known = self._open.get(slot.key)
        if known is not None:
            known.stamp = slot.stamp
        elif before is None:  # the slot was dropped too early because its process seemed to be gone
            self.add(slot)
        self.mark_refused(before)
        insort(self._send_times, slot.stamp)

    def answered(self, slot: Slot, rtt: float, window: float) -> None:
        """Close a slot whose reply came `rtt` seconds after it was sent."""
        if slot.stamp is not None and slot.key in self._open:
            self._close(slot.key, slot.stamp + self._delay.delay(rtt, window))

    def mark_refused(self, stamp: float | None) -> None:
        """Remove the send time of a request that the server refused."""
        at = len(self._send_times) if stamp is None else bisect_left(self._send_times, stamp)
        if at < len(self._send_times) and self._send_times[at] == stamp:
            del self._send_times[at]

    def leave(self, process_slot: int, window: float) -> None:
        """Remove the unused slots of a process that has ended, and close its other ones."""
        for key, slot in list(self._open.items()):
            if slot.process_slot == process_slot and slot.stamp is None:
                del self._open[key]
            elif slot.process_slot == process_slot and slot.stamp is not None:
                self._close(key, slot.stamp + self._delay.max_delay(window))

    def accepted_rate(self, at: float, seconds: float, unit: float) -> float:
        """Return the accepted requests per second of the `seconds` before `at`, as far as they are remembered."""
        if self._send_times:
            seconds = min(seconds, max(unit, at - self._send_times[0]))
        accepted = bisect_left(self._send_times, at) - bisect_right(self._send_times, at - seconds)
        return accepted / seconds

    def available_at(self, now: float, maximum: int, window: float) -> float:
        """Return `now` if the window has a free place, else the earliest time at which it may have one.

        Return UNKNOWN if that depends on replies which have not arrived yet.
        """
        horizon = now - window
        first = bisect_right(self._closed, horizon)
        surplus = len(self._closed) - first + len(self._open) - maximum + 1
        if surplus <= 0:
            return now
        surplus -= sum(self._arrival_time(slot, now, window) <= horizon for slot in self._open.values())
        if surplus <= 0:
            return now
        if first + surplus <= len(self._closed):
            return self._closed[first + surplus - 1] + window
        return UNKNOWN

    def prune(self, now: float, window: float, longest: float) -> None:
        """Close slots whose assumed arrival is final, and forget requests older than the `longest` window."""
        sent = [(key, slot.stamp) for key, slot in self._open.items() if slot.stamp is not None]
        for key, stamp in sent:
            if self._delay.is_final(now - stamp, window) or len(self._open) > MAX_REQUESTS:
                self._close(key, stamp + self._delay.max_delay(window))
        # a reply may still close an open slot in the past of the log, so a whole window is kept
        del self._closed[: max(bisect_right(self._closed, now - longest), len(self._closed) - 2 * MAX_REQUESTS)]
        del self._send_times[: max(0, len(self._send_times) - MAX_REQUESTS)]

    def _arrival_time(self, slot: Slot, now: float, window: float) -> float:
        """Return the latest possible arrival time of an open slot, without the shortest possible travel time."""
        return now if slot.stamp is None else slot.stamp + self._delay.delay(now - slot.stamp, window)

    def _close(self, key: tuple[int, int], stamp: float) -> None:
        del self._open[key]
        insort(self._closed, stamp)

    # transfer between processes

    def state(self) -> tuple[array[float], array[float], array[float]]:
        """Return the state for another process: arrival times, send times and open slots."""
        flat = array("d")
        for slot in self._open.values():
            stamp = float("nan") if slot.stamp is None else slot.stamp
            flat.extend((slot.process_slot, slot.number, slot.granted_at, slot.due, stamp))
        return self._closed, self._send_times, flat

    def restore(self, log: array[float], sends: array[float], flat: array[float]) -> None:
        """Replace the state by that of another process."""
        self._closed, self._send_times, self._open = log, sends, {}
        for at in range(0, len(flat), _SLOT_FIELDS):
            process, number, granted, due, stamp = flat[at : at + _SLOT_FIELDS]
            self.add(Slot(int(process), int(number), granted, due, None if stamp != stamp else stamp))  # noqa: PLR0124 - nan
