"""Log of recent requests that may still count in the server's window."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.net.lateness import Lateness

#: maximum requests in a window, and maximum send times that are remembered
MOST = 1024
#: a time that depends on replies which have not arrived yet
UNKNOWN = float("inf")
#: doubles per slot in the dumped state
_FIELDS = 5


@dataclass(eq=False, slots=True)
class Slot:
    """Permission to send one request; `stamp` is None until its bytes leave. Times are in seconds."""

    #: process slot of the process that holds it
    seat: int
    #: number within that process
    number: int
    granted: float
    #: time at which the next slot would have been due without this one
    due: float
    stamp: float | None = None
    #: True if the slot was waited for, so that its success shows that the rate holds
    pressed: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """Return the identity of the slot among all processes."""
        return self.seat, self.number


class Traffic:
    """Open slots, the assumed arrival times of closed ones, and the plain send times.

    `window` is in seconds. `delay` estimates the time between the sending and the arrival of a request.
    """

    def __init__(self, late: Lateness) -> None:
        self._late = late
        self._log = array("d")
        self._sends = array("d")
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
        self.refused(before)
        insort(self._sends, slot.stamp)

    def answered(self, slot: Slot, rtt: float, window: float) -> None:
        """Close a slot whose reply came `rtt` seconds after it was sent."""
        if slot.stamp is not None and slot.key in self._open:
            self._close(slot.key, slot.stamp + self._late.of(rtt, window))

    def refused(self, stamp: float | None) -> None:
        """Remove the send time of a request that the server refused."""
        at = len(self._sends) if stamp is None else bisect_left(self._sends, stamp)
        if at < len(self._sends) and self._sends[at] == stamp:
            del self._sends[at]

    def leave(self, seat: int, window: float) -> None:
        """Remove the unused slots of a process that has ended, and close its other ones."""
        for key, slot in list(self._open.items()):
            if slot.seat == seat and slot.stamp is None:
                del self._open[key]
            elif slot.seat == seat and slot.stamp is not None:
                self._close(key, slot.stamp + self._late.most(window))

    def taken(self, at: float, seconds: float, unit: float) -> float:
        """Return the accepted requests per second of the `seconds` before `at`, as far as they are remembered."""
        if self._sends:
            seconds = min(seconds, max(unit, at - self._sends[0]))
        accepted = bisect_left(self._sends, at) - bisect_right(self._sends, at - seconds)
        return accepted / seconds

    def room_at(self, now: float, most: int, window: float) -> float:
        """Return `now` if the window has a free place, else the earliest time at which it may have one.

        Return UNKNOWN if that depends on replies which have not arrived yet.
        """
        horizon = now - window
        first = bisect_right(self._log, horizon)
        surplus = len(self._log) - first + len(self._open) - most + 1
        if surplus <= 0:
            return now
        surplus -= sum(self._counts_from(slot, now, window) <= horizon for slot in self._open.values())
        if surplus <= 0:
            return now
        if first + surplus <= len(self._log):
            return self._log[first + surplus - 1] + window
        return UNKNOWN

    def settle(self, now: float, window: float, longest: float) -> None:
        """Close slots whose assumed arrival is final, and forget requests older than the `longest` window."""
        sent = [(key, slot.stamp) for key, slot in self._open.items() if slot.stamp is not None]
        for key, stamp in sent:
            if self._late.is_over(now - stamp, window) or len(self._open) > MOST:
                self._close(key, stamp + self._late.most(window))
        # a reply may still close an open slot in the past of the log, so a whole window is kept
        del self._log[: max(bisect_right(self._log, now - longest), len(self._log) - 2 * MOST)]
        del self._sends[: max(0, len(self._sends) - MOST)]

    def _counts_from(self, slot: Slot, now: float, window: float) -> float:
        """Return the latest possible arrival time of an open slot, without the shortest possible travel time."""
        return now if slot.stamp is None else slot.stamp + self._late.of(now - slot.stamp, window)

    def _close(self, key: tuple[int, int], stamp: float) -> None:
        del self._open[key]
        insort(self._log, stamp)

    # transfer between processes

    def values(self) -> tuple[array[float], array[float], array[float]]:
        """Return the state for another process: arrival times, send times and open slots."""
        flat = array("d")
        for slot in self._open.values():
            stamp = float("nan") if slot.stamp is None else slot.stamp
            flat.extend((slot.seat, slot.number, slot.granted, slot.due, stamp))
        return self._log, self._sends, flat

    def take(self, log: array[float], sends: array[float], flat: array[float]) -> None:
        """Replace the state by that of another process."""
        self._log, self._sends, self._open = log, sends, {}
        for at in range(0, len(flat), _FIELDS):
            process, number, granted, due, stamp = flat[at : at + _FIELDS]
            self.add(Slot(int(process), int(number), granted, due, None if stamp != stamp else stamp))  # noqa: PLR0124 - nan
