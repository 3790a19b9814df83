"""One figure with its goal, and a table of them; every goal is a number that the figure must not exceed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_HEAD = ("measure", "what", "figure", "goal", "met")


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured; without a goal it explains another figure, or differs from machine to machine.

    None is what could not be measured; then `what` says why.
    """

    what: str
    value: float | None
    goal: float | None = None
    unit: str = ""

    @property
    def met(self) -> bool:
        return self.goal is None or self.value is None or self.value <= self.goal

    def cells(self, measure: str) -> tuple[str, ...]:
        """Its row in the table."""
        if self.value is None:
            return measure, self.what, "", "", ""
        if self.goal is None:
            return measure, self.what, self._said(self.value), "", ""
        return measure, self.what, self._said(self.value), f"≤ {self._said(self.goal)}", "yes" if self.met else "NO"

    def _said(self, value: float) -> str:
        number = f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
        return f"{number} {self.unit}".rstrip()


def table(rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table that reads well on a terminal too."""
    rows = [_HEAD, *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = [_line(row, widths) for row in rows]
    return "\n".join([lines[0], _line(["-" * width for width in widths], widths), *lines[1:]])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))} |"
