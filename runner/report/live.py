"""Draw the live display on a terminal: a bar for every stage, redrawn in place, with log lines above it.

1. The cursor stays visible and the terminal's modes never change, so a killed process leaves a usable terminal.
2. A terminal that has closed ends the display and nothing else.
3. Lines are short, so that a narrower window does not wrap them. Below 60 columns the display is one line.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from runner.report.run_info import cost_text, short_status_line, speed_text, wait_text
from runner.tasks.models import State
from runner.text import format_rate, pluralize, sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runner.report.run_info import RunInfo
    from runner.report.stats import ProviderStats, RunStats

#: columns below which the display is one line, and columns that no line exceeds
_NARROW, _WIDE = 60, 100
_BAR_WIDTH = 24
#: states of a row, its label, its colour, and whether it is shown when empty
_ROWS = (
    ((State.QUEUED, State.SUBMITTING), "to submit", "blue", True),
    ((State.RUNNING,), "running", "cyan", True),
    ((State.READY,), "downloading", "cyan", True),
    ((State.DONE,), "done", "green", True),
    ((State.IN_DOUBT,), "in doubt", "yellow", False),
    ((State.HELD,), "held", "yellow", False),
    ((State.FAILED,), "failed", "red", False),
    ((State.STRANDED,), "stranded", "red", False),
)
_NOTES = {State.IN_DOUBT: "looked up before anything is sent again", State.HELD: "they wait for you"}


class LiveView:
    """Lines of the live display for the counters of a run."""

    def __init__(self, info: RunInfo, stats: RunStats, *, ascii_only: bool = False) -> None:
        self._info, self._stats = info, stats
        self._full, self._empty = ("#", "-") if ascii_only else ("━", "─")

    def lines(self, now: float, width: int, height: int) -> list[Text]:
        """Return the lines for a terminal of `width` columns and `height` rows; `now` is in seconds since the epoch."""
        lines = [
            self._title_line(now),
            *self._stage_lines(now),
            *self._provider_lines(now),
            *self._wait_lines(),
            *self._loss_lines(),
            *self._stopping_lines(),
        ]
        if width < _NARROW or len(lines) >= height:
            lines = [Text(short_status_line(self._info, self._stats, now))]
        for line in lines:
            line.no_wrap = True
            line.truncate(min(width - 1, _WIDE), overflow="ellipsis")
        return lines

    def _title_line(self, now: float) -> Text:
        stats = self._stats
        done = f"{stats.states[State.DONE]} of {stats.total} done"
        parts = [done, speed_text(stats, now), cost_text(self._info, stats)]
        return Text.assemble((sanitize(self._info.job, 40), "bold"), "  ", " · ".join(part for part in parts if part))

    def _stage_lines(self, now: float) -> Iterator[Text]:
        for states, name, colour, always in _ROWS:
            count = sum(max(0, self._stats.states[state]) for state in states)
            if count or always:
                filled = self._bar_cells(count)
                bar = ((self._full * filled, colour), (self._empty * (_BAR_WIDTH - filled), "dim"))
                yield Text.assemble(f"  {name:<12}", *bar, f" {count:>6}", (f"  {self._note(states, now)}", "dim"))

    def _bar_cells(self, count: int) -> int:
        """Return the filled cells of a bar; a count above zero fills at least one."""
        return min(_BAR_WIDTH, max(bool(count), _BAR_WIDTH * count // max(1, self._stats.total)))

    def _note(self, states: tuple[State, ...], now: float) -> str:
        if State.QUEUED not in states:
            return _NOTES.get(states[0], "")
        on_wire = self._stats.states[State.SUBMITTING]
        shares = list(self._stats.by_provider.items())
        parts = [self._submit_rate(*shares[0], now)] if len(shares) == 1 else []
        return " · ".join([*parts, *([f"{on_wire} on the wire"] if on_wire > 0 else [])])

    def _submit_rate(self, provider: str, share: ProviderStats, now: float) -> str:
        limit = self._info.limits.get(provider)
        if limit is None or not share.states[State.QUEUED] or self._stats.stopping:
            return ""
        return f"{format_rate(share.submits.rate(now))} of {format_rate(limit)}"

    def _provider_lines(self, now: float) -> Iterator[Text]:
        """Yield a line for each provider if there are several."""
        shares = self._stats.by_provider if len(self._stats.by_provider) > 1 else {}
        longest = max(map(cell_len, shares), default=0)
        for name, share in shares.items():
            parts = [
                f"{share.states[State.DONE]} of {sum(share.states.values())} done",
                f"{share.states[State.RUNNING]} running" if share.states[State.RUNNING] > 0 else "",
                self._submit_rate(name, share, now),
                f"cost {share.cost:g} {self._info.units.get(name, '')}".rstrip() if share.cost else "",
            ]
            yield Text(f"  {name:<{longest}}  {' · '.join(part for part in parts if part)}")

    def _wait_lines(self) -> Iterator[Text]:
        if wait := wait_text(self._stats.waits, self._stats.states):
            yield Text(f"  {wait}", "yellow")

    def _loss_lines(self) -> Iterator[Text]:
        for loss in self._stats.losses:
            why = sanitize(f"{loss.reason}: {loss.message}" if loss.message else loss.reason, 120)
            yield Text.assemble((f"  {loss.state} ", "red"), sanitize(loss.task, 40), (f"  {why}", "dim"))

    def _stopping_lines(self) -> Iterator[Text]:
        if self._stats.stopping:
            on_wire = self._stats.states[State.SUBMITTING]
            pending = f"{pluralize(on_wire, 'answer')} awaited, half a minute at most; Ctrl-C once more to hurry"
            yield Text(f"  stopping: {pending if on_wire > 0 else 'every answer is here'}", "yellow")


@contextmanager
def live_display(info: RunInfo, stats: RunStats, stream: TextIO) -> Iterator[Callable[[float], None] | None]:
    """Yield a function that redraws the display at a time (seconds), or None if the terminal cannot move its cursor."""
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    if console.is_dumb_terminal or not console.is_terminal:
        yield None
        return
    view = LiveView(info, stats, ascii_only=console.options.ascii_only)
    display = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
    closed = False

    def update(now: float) -> None:
        nonlocal closed
        if not closed:
            try:
                display.update(Group(*view.lines(now, console.width, console.height)), refresh=True)
            except OSError:
                closed = True

    with suppress(OSError):
        display.start()
        console.show_cursor(True)  # noqa: FBT003 - rich's way to say it
    try:
        yield update
    finally:
        with suppress(OSError):
            display.stop()
