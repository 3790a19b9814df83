"""What was sent of late, and what of it may still stand in the window that the server looks at."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.net.lateness import Lateness

#: requests in a window, and as many remembered to learn from
MOST = 1024
#: a time that depends on replies which are not here yet
UNKNOWN = float("inf")
#: doubles that say what a slot is
_FIELDS = 5


@dataclass(eq=False, slots=True)
class Slot:
    """Leave for one request; `stamp` is None until its bytes leave."""

    #: which process of the account has it, and its number there
    seat: int
    number: int
    granted: float
    #: when the slot after this one would have been due without it
    due: float
    stamp: float | None = None
    #: it was waited for, so its success says that the rate holds
    pressed: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """What it is known by in every process."""
        return self.seat, self.number


class Traffic:
    """Open slots, the log of closed ones by the time that they count from, and plain times of sending.

    `window` is in seconds; `late` says how much later than it was sent a request counts.
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
        """It counts from now on."""
        self._open[slot.key] = slot

    def drop(self, slot: Slot) -> bool:
        """It will not be sent; False where nobody knows it any more."""
        return self._open.pop(slot.key, None) is not None

    def sent(self, slot: Slot, stamp: float) -> None:
        """Its bytes leave; said twice, the later stamp holds."""
        before, slot.stamp = slot.stamp, stamp if slot.stamp is None else max(slot.stamp, stamp)
        known = self._open.get(slot.key)
        if known is not None:
            known.stamp = slot.stamp
        elif before is None:  # whoever took its place was told too early that its process was gone
            self.add(slot)
        self.refused(before)
        insort(self._sends, slot.stamp)

    def answered(self, slot: Slot, rtt: float, window: float) -> None:
        """Its reply came so many seconds after it was sent."""
        if slot.stamp is not None and slot.key in self._open:
            self._close(slot.key, slot.stamp + self._late.of(rtt, window))

    def refused(self, stamp: float | None) -> None:
        """What was sent then was not taken."""
        at = len(self._sends) if stamp is None else bisect_left(self._sends, stamp)
        if at < len(self._sends) and self._sends[at] == stamp:
            del self._sends[at]

    def leave(self, seat: int, window: float) -> None:
        """That process is gone: what it had not sent never will be."""
        for key, slot in list(self._open.items()):
            if slot.seat == seat and slot.stamp is None:
                del self._open[key]
            elif slot.seat == seat and slot.stamp is not None:
                self._close(key, slot.stamp + self._late.most(window))

    def taken(self, at: float, seconds: float, unit: float) -> float:
        """The rate of what was sent within so many seconds before, as far as is remembered, and taken."""
        if self._sends:
            seconds = min(seconds, max(unit, at - self._sends[0]))
        taken = bisect_left(self._sends, at) - bisect_right(self._sends, at - seconds)
        return taken / seconds

    def room_at(self, now: float, most: int, window: float) -> float:
        """`now` where the window has room for one more, else the earliest time at which it may have."""
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
        """Close what can move no further, and forget what left the longest window."""
        sent = [(key, slot.stamp) for key, slot in self._open.items() if slot.stamp is not None]
        for key, stamp in sent:
            if self._late.is_over(now - stamp, window) or len(self._open) > MOST:
                self._close(key, stamp + self._late.most(window))
        # an open slot may be answered yet and enter the log in the past, so a whole window is kept and no more
        del self._log[: max(bisect_right(self._log, now - longest), len(self._log) - 2 * MOST)]
        del self._sends[: max(0, len(self._sends) - MOST)]

    def _counts_from(self, slot: Slot, now: float, window: float) -> float:
        """The latest that it may have arrived, as far as is known, less the best way there."""
        return now if slot.stamp is None else slot.stamp + self._late.of(now - slot.stamp, window)

    def _close(self, key: tuple[int, int], stamp: float) -> None:
        del self._open[key]
        insort(self._log, stamp)

    # from process to process

    def values(self) -> tuple[array[float], array[float], array[float]]:
        """What another process needs to go on with it: the log, the sends and the open slots."""
        flat = array("d")
        for slot in self._open.values():
            stamp = float("nan") if slot.stamp is None else slot.stamp
            flat.extend((slot.seat, slot.number, slot.granted, slot.due, stamp))
        return self._log, self._sends, flat

    def take(self, log: array[float], sends: array[float], flat: array[float]) -> None:
        """Go on where another process was."""
        self._log, self._sends, self._open = log, sends, {}
        for at in range(0, len(flat), _FIELDS):
            seat, number, granted, due, stamp = flat[at : at + _FIELDS]
            self.add(Slot(int(seat), int(number), granted, due, None if stamp != stamp else stamp))  # noqa: PLR0124 - nan
