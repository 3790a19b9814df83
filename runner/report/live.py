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

from runner.lifecycle.task import State
from runner.report.progress import brief, cost, speed
from runner.report.text import harmless, many, pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runner.report.progress import Facts
    from runner.report.tally import Share, Tally

#: columns below which the display is one line, and columns that no line exceeds
_NARROW, _WIDE = 60, 100
_BAR = 24
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


class View:
    """Lines of the live display for the counters of a run."""

    def __init__(self, info: Facts, stats: Tally, *, ascii_only: bool = False) -> None:
        self._facts, self._tally = info, stats
        self._full, self._rest = ("#", "-") if ascii_only else ("━", "─")

    def lines(self, now: float, width: int, height: int) -> list[Text]:
        """Return the lines for a terminal of `width` columns and `height` rows; `now` is in seconds since the epoch."""
        lines = [self._title(now), *self._stages(now), *self._providers(now), *self._losses(), *self._stopping()]
        if width < _NARROW or len(lines) >= height:
            lines = [Text(brief(self._facts, self._tally, now))]
        for line in lines:
            line.no_wrap = True
            line.truncate(min(width - 1, _WIDE), overflow="ellipsis")
        return lines

    def _title(self, now: float) -> Text:
        stats = self._tally
        done = f"{stats.states[State.DONE]} of {stats.total} done"
        parts = [done, speed(stats, now), cost(self._facts, stats)]
        return Text.assemble((harmless(self._facts.job, 40), "bold"), "  ", " · ".join(part for part in parts if part))

    def _stages(self, now: float) -> Iterator[Text]:
        for states, name, colour, always in _ROWS:
            count = sum(max(0, self._tally.states[state]) for state in states)
            if count or always:
                filled = self._filled(count)
                bar = ((self._full * filled, colour), (self._rest * (_BAR - filled), "dim"))
                yield Text.assemble(f"  {name:<12}", *bar, f" {count:>6}", (f"  {self._note(states, now)}", "dim"))

    def _filled(self, count: int) -> int:
        """Return the filled cells of a bar; a count above zero fills at least one."""
        return min(_BAR, max(bool(count), _BAR * count // max(1, self._tally.total)))

    def _note(self, states: tuple[State, ...], now: float) -> str:
        if State.QUEUED not in states:
            return _NOTES.get(states[0], "")
        on_wire = self._tally.states[State.SUBMITTING]
        shares = list(self._tally.shares.items())
        parts = [self._submits(*shares[0], now)] if len(shares) == 1 else []
        return " · ".join([*parts, *([f"{on_wire} on the wire"] if on_wire > 0 else [])])

    def _submits(self, provider: str, share: Share, now: float) -> str:
        limit = self._facts.limits.get(provider)
        if limit is None or not share.states[State.QUEUED] or self._tally.stopping:
            return ""
        return f"{pace(share.submits.rate(now))} of {pace(limit)}"

    def _providers(self, now: float) -> Iterator[Text]:
        """Yield a line for each provider if there are several."""
        shares = self._tally.shares if len(self._tally.shares) > 1 else {}
        longest = max(map(cell_len, shares), default=0)
        for name, share in shares.items():
            parts = [
                f"{share.states[State.DONE]} of {sum(share.states.values())} done",
                f"{share.states[State.RUNNING]} running" if share.states[State.RUNNING] > 0 else "",
                self._submits(name, share, now),
                f"cost {share.cost:g} {self._facts.units.get(name, '')}".rstrip() if share.cost else "",
            ]
            yield Text(f"  {name:<{longest}}  {' · '.join(part for part in parts if part)}")

    def _losses(self) -> Iterator[Text]:
        for loss in self._tally.losses:
            why = harmless(f"{loss.reason}: {loss.message}" if loss.message else loss.reason, 120)
            yield Text.assemble((f"  {loss.state} ", "red"), harmless(loss.task, 40), (f"  {why}", "dim"))

    def _stopping(self) -> Iterator[Text]:
        if self._tally.stopping:
            on_wire = self._tally.states[State.SUBMITTING]
            pending = f"{many(on_wire, 'answer')} awaited, half a minute at most; Ctrl-C once more to hurry"
            yield Text(f"  stopping: {pending if on_wire > 0 else 'every answer is here'}", "yellow")


@contextmanager
def live(info: Facts, stats: Tally, stream: TextIO) -> Iterator[Callable[[float], None] | None]:
    """Yield a function that redraws the display at a time (seconds), or None if the terminal cannot move its cursor."""
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    if console.is_dumb_terminal or not console.is_terminal:
        yield None
        return
    view = View(info, stats, ascii_only=console.options.ascii_only)
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
