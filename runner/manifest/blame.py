"""Where a value came from, so that a mistake is told where it was written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runner.manifest import items
from runner.manifest.recipe import CHOICES
from runner.manifest.values import Mapping, dotted, said, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.errors import Mistake
    from runner.manifest.combine import Spot
    from runner.manifest.formats import Row
    from runner.manifest.parse import Parsed
    from runner.manifest.recipe import Param, Shape
    from runner.manifest.recipe import Path as Where
    from runner.manifest.report import Report
    from runner.manifest.templates import TemplateError

#: characters of the values that tell one combination from another
_WORDS = 60


class Blame:
    """Adds problems to a report, each where its value was written."""

    def __init__(self, parsed: Parsed, report: Report, params: Iterable[Param]) -> None:
        self._manifest = parsed.manifest
        self._places = parsed.places
        self._report = report
        self._axes = parsed.manifest.matrix.axes
        self._groups = {axis.name: at for at, group in enumerate(parsed.manifest.matrix.groups) for axis in group}
        self._uses = {param.name: param.uses for param in params}
        self._told: set[tuple[str, str]] = set()

    def label(self, file: Path) -> str:
        """A data file as a person finds it."""
        return items.label(file, Path(self._manifest.file))

    def mistake(self, mistake: Mistake, spot: Spot, shape: Shape) -> None:
        """What a model says of one of its parameters."""
        name, message, hint = mistake.name, mistake.message, mistake.hint
        if empty := next((need for need in mistake.needs if spot.row.values.get(need, 0) in (None, "")), ""):
            self.row(spot.row, empty, f"is empty in this row, and {message}", "fill it in, or take the row out")
            return
        chosen = self._chosen(spot)
        if chosen and name and not shape.takes(name):
            hint = f"{hint}; or give it only to models that have it, with `matrix.set`"
        if name in spot.given:
            self.given(name, spot, message, self._otherwise(name, shape, hint))
        elif name in self._manifest.params or name not in spot.row.values:
            self._of_params(name, spot, message, hint, chosen)
        else:
            self.row(spot.row, name, message, self._otherwise(name, shape, hint))

    def template(self, error: TemplateError, spot: Spot) -> None:
        """A text that could not be made, most often for a variable that a row does not have."""
        path, name = error.path, error.missing
        if not name:
            self.at(path, error.message + self._row_words(spot), error.hint)
        elif name in spot.given:
            self.given(name, spot, f"is nothing here, but `{dotted(path)}` uses it", "write a value")
        elif isinstance(spot.at, int) and name not in spot.row.values:
            added: Where = ("matrix", "add", spot.at)
            self.at(added, f"gives no `{name}`, but `{dotted(path)}` uses it", f"add `{name}: …` to this row")
        elif self._manifest.matrix.gives(name) and name not in spot.row.values:
            message = f"`{name}` is given by `matrix.add` or `matrix.set` to some tasks, and this is used by others"
            self.at(path, message, "use the filter `default('')`, or make it an axis")
        else:
            self.row(spot.row, name, f"has no value in this row, but `{dotted(path)}` uses it",
                     "give it one, or use the filter `default('')`")  # fmt: skip

    def choice(self, name: str, spot: Spot, message: str, hint: str) -> None:
        """A provider or a model that cannot be."""
        if name in spot.given:
            self.given(name, spot, message, hint)
        elif getattr(self._manifest, name) or name not in spot.row.values:
            self.at((name,), message, hint)
        else:
            self.row(spot.row, name, message, hint)

    def given(self, name: str, spot: Spot, message: str, hint: str) -> None:
        """What is wrong with a value that the matrix gives."""
        axis = self._axes.get(name)
        path = self.path(name, spot)
        if axis and axis.file and path == axis.path:
            line = axis.lines[self._position(name, spot)]
            self._report.add((line, 1), name, message, hint, file=self.label(axis.file))
        else:
            self.at(path, message, hint)

    def path(self, name: str, spot: Spot) -> Where:
        """Where the matrix gives a value; for a value of a file, where that axis stands."""
        for number in reversed(spot.changed):
            if name in self._manifest.matrix.set[number].then:
                return ("matrix", "set", number, "then", name)
        if isinstance(spot.at, int):
            return ("matrix", "add", spot.at, name)
        axis = self._axes[name]
        return axis.path if axis.file else (*axis.path, self._position(name, spot))

    def row(self, row: Row, name: str, message: str, hint: str, *, warn: bool = False) -> None:
        """What is wrong with a value of a row, or may be."""
        place = row.line, row.column
        if isinstance(row.values, Mapping) and name in row.values:
            place = unpack(row.values.value_at(name))
        self._report.add(place, name, message, hint, file=row.file, warn=warn)

    def cell(self, name: str, spot: Spot, message: str, hint: str) -> None:
        """What is wrong with what a task's row says."""
        self.row(spot.row, name, message, hint)

    def columns(self, first: Row, message: str, hint: str, *, warn: bool = False) -> None:
        """What is wrong with the names of columns, or may be; they stand where a file begins."""
        if self._manifest.items and self._manifest.items.file:
            self._report.add((1, 1), "", message, hint, file=first.file, warn=warn)
        else:
            self.at(("items",), message, hint, warn=warn)

    def at(self, path: Where, message: str, hint: str, *, key: bool = False, warn: bool = False) -> None:
        """What is wrong with a place of the manifest, or may be."""
        place = self._places.key_place(*path) if key else self._places.place(*path)
        self._report.add(place, dotted(path), message, hint, warn=warn)

    def where(self, row: tuple[int, int]) -> str:
        """A task in words: its number, and its line where it has a row."""
        index, line = row
        return f"task {index} (row in line {line})" if self._manifest.items else f"task {index}"

    def words(self, spot: Spot) -> str:
        """Where a task comes from, short enough for a list: its row, and what the matrix gives."""
        given = ", ".join(f"{name}: {said(value)}" for name, value in spot.given.items())
        short = given if len(given) <= _WORDS else f"{given[: _WORDS - 1]}…"
        row = f"{spot.row.file}:{spot.row.line}" if self._manifest.items else ""
        return f"{row} ({short})" if row and short else row or short or "a task"

    def _otherwise(self, name: str, shape: Shape, hint: str) -> str:
        """A column or an axis that texts use may be called like a parameter by chance."""
        if not shape.takes(name) or not any(name in used for used in self._uses.values()):
            return hint
        return f"{hint}; it sets the parameter `{name}`: call it otherwise if it is meant for texts alone"

    def _of_params(self, name: str, spot: Spot, message: str, hint: str, chosen: str) -> None:
        constant = name and name in self._uses and not self._uses[name] & spot.row.values.keys()
        if constant and (name, message) in self._told:
            return
        self._told.add((name, message))
        words = chosen if constant else self._row_words(spot) if name in self._uses else ""
        self.at(("params", name) if name else ("params",), message + words, hint)

    def _chosen(self, spot: Spot) -> str:
        """What says which model it is, in words; nothing where the manifest does."""
        for name in reversed(CHOICES):
            if name in spot.given:
                return f" (the {name} of `{dotted(self.path(name, spot))}`)"
            if not getattr(self._manifest, name) and name in spot.row.values:
                return f" (the {name} of {spot.row.file}:{spot.row.line})"
        return ""

    def _row_words(self, spot: Spot) -> str:
        return f" (with the row in {spot.row.file}:{spot.row.line})" if self._manifest.items else ""

    def _position(self, name: str, spot: Spot) -> int:
        return spot.at[self._groups[name]] if isinstance(spot.at, tuple) else 0
