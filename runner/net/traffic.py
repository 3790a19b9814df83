"""Log of recent requests that may still count in the server's window."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.net.lateness import DelayEstimator

#: maximum requests in a window, and maximum send times that are remembered
MAX_REQUESTS = 1024
#: a time that depends on replies which have not arrived yet
UNKNOWN = float("inf")
#: doubles per slot in the dumped state
_SLOT_FIELDS = 5


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
