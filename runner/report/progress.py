"""What is seen while a run goes on: one live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from runner.lifecycle.task import State
from runner.report.text import duration, harmless

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console, RenderableType

    from runner.report.tally import Tally

#: seconds between two plain lines
EVERY = 30.0
_WORDS = (
    (State.SUBMITTING, "submitting"),
    (State.RUNNING, "running"),
    (State.READY, "downloading"),
    (State.IN_DOUBT, "in doubt"),
    (State.HELD, "held"),
    (State.FAILED, "failed"),
    (State.STRANDED, "stranded"),
)


def sentence(name: str, tally: Tally, now: float) -> str:
    """Where the run stands, in one line."""
    states = tally.states
    parts = [f"{states[State.DONE]}/{tally.total} done"]
    parts += [f"{states[state]} {word}" for state, word in _WORDS if states[state]]
    rate = tally.rate(now)
    if rate and tally.open:
        parts.append(f"{rate:.1f}/s, {duration(tally.eta(now))} to go")
    if tally.last_fault:
        parts.append(f"last: {harmless(tally.last_fault, 60)}")
    return f"{name}: {' · '.join(parts)}"


class Plain:
    """A line every 30 s, and whenever a kind of state is entered for the first time."""

    def __init__(self, name: str, tally: Tally, stream: TextIO) -> None:
        self._name, self._tally, self._stream = name, tally, stream
        self._kinds: set[str] = set()
        self._next = float("-inf")

    def update(self, now: float) -> None:
        """Say something if there is something to say; an output that is gone stops nothing (FP8)."""
        kinds = {state for state, count in self._tally.states.items() if count > 0}
        if now < self._next and kinds <= self._kinds:
            return
        self._kinds |= kinds
        self._next = now + EVERY
        try:
            print(sentence(self._name, self._tally, now), file=self._stream, flush=True)
        except OSError:
            self._next = float("inf")


class Live:
    """One line that redraws itself on a terminal, with a bar; log lines scroll above it."""

    def __init__(self, name: str, tally: Tally, console: Console) -> None:
        from rich.live import Live as RichLive  # noqa: PLC0415 - only a terminal pays for it

        self._name, self._tally, self._console = name, tally, console
        self.live = RichLive(console=console, refresh_per_second=8, transient=True)

    def update(self, now: float) -> None:
        """Draw the present state."""
        self.live.update(self._line(now))

    def _line(self, now: float) -> RenderableType:
        from rich.progress_bar import ProgressBar  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        text = Text(sentence(self._name, self._tally, now), overflow="ellipsis", no_wrap=True)
        if self._console.width < 60:  # noqa: PLR2004 - a narrow window gets the words alone
            return text
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(width=24)
        grid.add_column(ratio=1)
        grid.add_row(ProgressBar(total=max(1, self._tally.total), completed=self._tally.total - self._tally.open), text)
        return grid


@contextmanager
def shown(name: str, tally: Tally, stream: TextIO, *, quiet: bool) -> Iterator[Callable[[float], None]]:
    """What to call now and then with the present time; live on a terminal, plain elsewhere, silent when quiet."""
    if quiet:
        yield lambda _: None
    elif stream.isatty():
        from rich.console import Console  # noqa: PLC0415

        live = Live(name, tally, Console(file=stream, highlight=False))
        with live.live:
            yield live.update
    else:
        yield Plain(name, tally, stream).update
