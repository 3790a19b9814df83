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

from runner.ratelimit.window import Slot

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.ratelimit.window import SlidingWindow

#: seconds until the next attempt if another process holds the lock, and until a change that is not urgent is stored
_RETRY_INTERVAL, _FLUSH_DELAY = 0.001, 0.01
#: seconds without an update after which this process continues alone
_ALONE_AFTER = 2.0
#: seconds between two checks for ended processes, and between two attempts of a process that continues alone
_SWEEP_INTERVAL = 0.25
#: maximum number of changes that are stored later
_MAX_PENDING = 1024
_BUSY = "another process holds it"


class RateStateFile(Protocol):
    """State in a file that the processes of an account share; implemented by the store's `SharedRateState`."""

    process_slot: int

    def change(self, work: Callable[[bytes | None, bool], bytes | None]) -> bool: ...

    def forget(self) -> None: ...

    def is_taken(self, slot: int) -> bool: ...

    def close(self) -> None: ...


class SharedSlidingWindow:
    """Sliding window whose state is shared through a `RateStateFile`; has the methods of a `RateLimit`.

    `call_later(seconds, call)` schedules a call on the event loop. `on_warning` is called with a text for the user.
    """

    def __init__(
        self,
        window: SlidingWindow,
        state: RateStateFile,
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
        on_warning: Callable[[str], None],
    ) -> None:
        window.process_slot = state.process_slot
        self._window, self._state = window, state
        self._clock, self._call_later, self._on_warning = clock, call_later, on_warning
        self._pending: deque[Callable[[SlidingWindow], None]] = deque(maxlen=_MAX_PENDING)
        self._is_scheduled = self._is_closed = self._is_alone = False
        self._cause = _BUSY
        self._updated_at = clock()
        self._swept_at = float("-inf")
        self._apply(lambda window: window.join())

    def __repr__(self) -> str:
        return f"SharedSlidingWindow({self._window!r}, process slot {self._state.process_slot})"

    @property
    def other_processes(self) -> int:
        """Return the number of the account's other processes."""
        return len(self._window.other_processes)

    def grant(self, now: float) -> Slot | float:
        """Return a slot, or the time at which to ask again."""
        results: list[Slot | float] = []

        def ask(window: SlidingWindow) -> bool:
            has_removed = self._remove_dead_processes(window, now)
            results.append(window.grant(now))
            return has_removed or isinstance(results[0], Slot)

        if not self._is_alone and self._update(ask):
            return results[0]
        for lost in results:  # the update was made, but could not be stored
            if isinstance(lost, Slot):
                self._window.release(lost)
        if not self._is_alone and not self._continue_alone():
            return now + _RETRY_INTERVAL
        granted = self._window.grant(now)
        if isinstance(granted, Slot):
            slot = granted
            self._pending.append(lambda window: window.adopt(slot))
        self._flush_in(_SWEEP_INTERVAL)
        return granted

    def sent(self, slot: Slot, stamp: float) -> None:
        """Record that the slot's bytes leave, before they do, so that the request counts even if this process dies."""
        self._apply(lambda window: window.sent(slot, stamp), soon=slot.stamp is not None)

    def answered(self, slot: Slot, rtt: float) -> None:
        """Record that the reply's headers arrived `rtt` seconds after the stamp."""
        self._apply(lambda window: window.answered(slot, rtt), soon=True)

    def release(self, slot: Slot) -> None:
        """Give an unused slot back; do nothing for a used one."""
        if slot.stamp is None:
            self._apply(lambda window: window.release(slot), soon=True)

    def throttled(self, now: float, wait: float | None = None, slot: Slot | None = None) -> None:
        """Pause every process of the account after the server refused a request as too fast, and adapt the rate."""
        self._apply(lambda window: window.throttled(now, wait, slot))

    def close(self) -> None:
        """Leave the account and give the unused slots to its other processes."""
        if not self._is_closed:
            self._is_closed = True
            self._pending.append(lambda window: window.leave(window.process_slot))
            self._update()
            self._state.close()

    def _remove_dead_processes(self, window: SlidingWindow, now: float) -> bool:
        """Remove the processes that have ended; return True if there were any."""
        if now - self._swept_at < _SWEEP_INTERVAL:
            return False
        self._swept_at = now
        dead = [process for process in window.other_processes if not self._state.is_taken(process)]
        for process in dead:
            window.leave(process)
        return bool(dead)

    def _apply(self, act: Callable[[SlidingWindow], None], *, soon: bool = False) -> None:
        """Apply a change to the shared state: at once, or shortly if it may wait (`soon`) or no update is possible."""
        self._pending.append(act)
        if self._is_alone:
            act(self._window)
        if self._is_alone or soon:
            self._flush_in(_FLUSH_DELAY)
        elif not self._update():
            self._continue_alone()
            self._flush_in(_RETRY_INTERVAL)

    def _continue_alone(self) -> bool:
        """Continue without the shared state if there was no update for too long; return True if so.

        Pending changes are then applied to the local state.
        """
        if self._clock() - self._updated_at < _ALONE_AFTER:
            return False
        self._is_alone = True
        self._on_warning(f"the account's rate is not shared with its other processes for now: {self._cause}")
        for change in self._pending:
            change(self._window)
        return True

    def _flush_in(self, seconds: float) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._call_later(_SWEEP_INTERVAL if self._is_alone else seconds, self._flush)

    def _flush(self) -> None:
        self._is_scheduled = False
        if not self._is_closed and self._pending and not self._update():
            self._flush_in(_RETRY_INTERVAL)

    def _update(self, act: Callable[[SlidingWindow], bool] = lambda _: False) -> bool:
        """Apply pending changes and then `act` to the shared state; return False if that was not possible.

        `act` returns True if it changed anything.
        """

        def work(data: bytes | None, old: bool) -> bytes | None:
            if data is not None:
                self._window.load(data, self._clock(), earlier_boot=old)
            for change in self._pending:
                change(self._window)
            changed = act(self._window) or bool(self._pending)
            return self._window.dump() if changed else None

        try:
            done = self._state.change(work)
        except OSError as error:
            self._cause, done = str(error), False
        if done:
            self._pending.clear()
            self._updated_at, self._is_alone, self._cause = self._clock(), False, _BUSY
        elif self._is_alone or self._cause is not _BUSY:
            self._state.forget()  # the local state differs from the file, so the next update must load it
        return done
