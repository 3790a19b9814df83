"""Show the progress of a run: a live display on a terminal, a plain line every 30 seconds elsewhere."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from runner.report.run_info import status_line
from runner.tasks.models import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runner.report.run_info import RunInfo
    from runner.report.stats import RunStats

#: seconds between two plain lines
PLAIN_INTERVAL = 30.0
#: seconds to the first report of what is checked on a terminal, and between two
_MOMENT = 0.5
#: states that every task enters and leaves all the time, which make no line of their own
_TRANSIENT_STATES = {State.SUBMITTING, State.READY}


class PlainProgress:
    """Progress as plain lines: one every 30 seconds, and one when a state is entered for the first time."""

    def __init__(self, info: RunInfo, stats: RunStats, stream: TextIO) -> None:
        self._info, self._stats, self._stream = info, stats, stream
        self._seen_states: set[str] = set()
        self._next = float("-inf")

    def update(self, now: float) -> None:
        """Print a line if one is due at `now` (seconds); a closed output must not stop the run."""
        states = {state for state, count in self._stats.states.items() if count > 0} - _TRANSIENT_STATES
        states |= {"stopping"} if self._stats.stopping else set()
        if now < self._next and states <= self._seen_states:
            return
        self._seen_states |= states
        self._next = now + PLAIN_INTERVAL
        try:
            print(status_line(self._info, self._stats, now), file=self._stream, flush=True)
        except OSError:
            self._next = float("inf")


@contextmanager
def show_checking(
    label: str, stream: TextIO | None, now: Callable[[], float], *, quiet: bool = False
) -> Iterator[Callable[[int], None] | None]:
    """Yield a function that shows how many tasks of a large manifest were checked so far, or None if nobody sees it.

    On a terminal it is one line, which is taken away at the end; elsewhere a line now and then. `now` returns seconds.
    """
    if quiet or stream is None:
        yield None
        return
    is_terminal = stream.isatty()
    interval = _MOMENT if is_terminal else PLAIN_INTERVAL
    before, after = ("\r\x1b[K", "") if is_terminal else ("", "\n")
    due, shown = now() + interval, False

    def show(count: int) -> None:
        nonlocal due, shown
        if (moment := now()) >= due:
            due, shown = moment + interval, True
            with suppress(OSError):  # the reader is gone, and nothing depends on it
                print(f"{before}{label}: {count:,} tasks checked", end=after, file=stream, flush=True)

    try:
        yield show
    finally:
        if shown:
            with suppress(OSError):
                print(before, end="", file=stream, flush=True)


@contextmanager
def show_progress(info: RunInfo, stats: RunStats, stream: TextIO, *, quiet: bool) -> Iterator[Callable[[float], None]]:
    """Yield a function that updates the progress when it is called with the current time in seconds.

    The progress is live on a terminal, plain lines elsewhere, and nothing if `quiet`.
    """
    if quiet:
        yield lambda _: None
        return
    if stream.isatty():
        from runner.report.live import live_display  # noqa: PLC0415 - only a terminal pays for rich

        with live_display(info, stats, stream) as update:
            if update is not None:
                yield update
                return
    yield PlainProgress(info, stats, stream).update
