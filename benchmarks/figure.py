"""Figures with their goals, and a table of them. A goal is an upper bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_HEAD = ("measure", "what", "figure", "goal", "met")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure. Without a goal it explains another figure, or depends on the machine.

    A value of None could not be measured, and `what` says why.
    """

    what: str
    value: float | None
    goal: float | None = None
    unit: str = ""

    @property
    def met(self) -> bool:
        return self.goal is None or self.value is None or self.value <= self.goal

    def cells(self, measure: str) -> tuple[str, ...]:
        """Return the row of the table."""
        if self.value is None:
            return measure, self.what, "", "", ""
        if self.goal is None:
            return measure, self.what, self._text(self.value), "", ""
        return measure, self.what, self._text(self.value), f"≤ {self._text(self.goal)}", "yes" if self.met else "NO"

    def _text(self, value: float) -> str:
        number = f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
        return f"{number} {self.unit}".rstrip()


def table(rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns."""
    rows = [_HEAD, *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = [_line(row, widths) for row in rows]
    return "\n".join([lines[0], _line(["-" * width for width in widths], widths), *lines[1:]])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))} |"
