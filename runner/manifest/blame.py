"""Trace values to the location at which they were written, so that a diagnostic points there."""

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
    from runner.manifest.recipe import Path as KeyPath
    from runner.manifest.report import Report
    from runner.manifest.templates import TemplateError

#: characters of the values that describe a combination
_WORDS = 60


class Blame:
    """Origin of the values of tasks. Adds diagnostics at the location at which a value was written."""

    def __init__(self, parsed: Parsed, diagnostics: Report, params: Iterable[Param]) -> None:
        self._manifest = parsed.manifest
        self._places = parsed.places
        self._report = diagnostics
        self._axes = parsed.manifest.matrix.axes
        self._groups = {axis.name: at for at, group in enumerate(parsed.manifest.matrix.groups) for axis in group}
        self._uses = {param.name: param.uses for param in params}
        self._told: set[tuple[str, str]] = set()

    def label(self, file: Path) -> str:
        """Return the path of a data file as messages show it."""
        return items.label(file, Path(self._manifest.file))

    def mistake(self, diagnostic: Mistake, combination: Spot, model: Shape) -> None:
        """Report what a model says of one of its parameters."""
        name, message, hint = diagnostic.name, diagnostic.message, diagnostic.hint
        if empty := next((need for need in diagnostic.needs if combination.row.values.get(need, 0) in (None, "")), ""):
            self.row(combination.row, empty, f"is empty in this row, and {message}", "fill it in, or take the row out")
            return
        model_source = self._chosen(combination)
        if model_source and name and not model.takes(name):
            hint = f"{hint}; or give it only to models that have it, with `matrix.set`"
        if name in combination.given:
            self.given(name, combination, message, self._otherwise(name, model, hint))
        elif name in self._manifest.params or name not in combination.row.values:
            self._of_params(name, combination, message, hint, model_source)
        else:
            self.row(combination.row, name, message, self._otherwise(name, model, hint))

    def template(self, error: TemplateError, combination: Spot) -> None:
        """Report a template that could not be rendered, most often for a variable that a row does not have."""
        path, name = error.path, error.missing
        if not name:
            self.at(path, error.message + self._row_words(combination), error.hint)
        elif name in combination.given:
            self.given(name, combination, f"is nothing here, but `{dotted(path)}` uses it", "write a value")
        elif isinstance(combination.at, int) and name not in combination.row.values:
            added: KeyPath = ("matrix", "add", combination.at)
            self.at(added, f"gives no `{name}`, but `{dotted(path)}` uses it", f"add `{name}: …` to this row")
        elif self._manifest.matrix.gives(name) and name not in combination.row.values:
            message = f"`{name}` is given by `matrix.add` or `matrix.set` to some tasks, and this is used by others"
            self.at(path, message, "use the filter `default('')`, or make it an axis")
        else:
            self.row(combination.row, name, f"has no value in this row, but `{dotted(path)}` uses it",
                     "give it one, or use the filter `default('')`")  # fmt: skip

    def choice(self, name: str, combination: Spot, message: str, hint: str) -> None:
        """Report a provider or a model that does not exist."""
        if name in combination.given:
            self.given(name, combination, message, hint)
        elif getattr(self._manifest, name) or name not in combination.row.values:
            self.at((name,), message, hint)
        else:
            self.row(combination.row, name, message, hint)

    def given(self, name: str, combination: Spot, message: str, hint: str) -> None:
        """Report an error in a value that the matrix gives."""
        axis = self._axes.get(name)
        path = self.path(name, combination)
        if axis and axis.file and path == axis.path:
            line = axis.lines[self._position(name, combination)]
            self._report.add((line, 1), name, message, hint, file=self.label(axis.file))
        else:
            self.at(path, message, hint)

    def path(self, name: str, combination: Spot) -> KeyPath:
        """Return the path at which the matrix gives a value, or the path of the axis if the value comes from a file."""
        for number in reversed(combination.changed):
            if name in self._manifest.matrix.set[number].then:
                return ("matrix", "set", number, "then", name)
        if isinstance(combination.at, int):
            return ("matrix", "add", combination.at, name)
        axis = self._axes[name]
        return axis.path if axis.file else (*axis.path, self._position(name, combination))

    def row(self, row: Row, name: str, message: str, hint: str, *, warn: bool = False) -> None:
        """Report an error in a value of a row, or a warning if `warn` is set."""
        location = row.line, row.column
        if isinstance(row.values, Mapping) and name in row.values:
            location = unpack(row.values.value_at(name))
        self._report.add(location, name, message, hint, file=row.file, warn=warn)

    def cell(self, name: str, combination: Spot, message: str, hint: str) -> None:
        """Report an error in a value of a task's row."""
        self.row(combination.row, name, message, hint)

    def columns(self, first: Row, message: str, hint: str, *, warn: bool = False) -> None:
        """Report an error or a warning on the names of columns, at the first line of their file or at `items`."""
        if self._manifest.items and self._manifest.items.file:
            self._report.add((1, 1), "", message, hint, file=first.file, warn=warn)
        else:
            self.at(("items",), message, hint, warn=warn)

    def at(self, path: KeyPath, message: str, hint: str, *, key: bool = False, warn: bool = False) -> None:
        """Report an error or a warning at a path of the manifest, at its key if `key` is set."""
        location = self._places.key_place(*path) if key else self._places.place(*path)
        self._report.add(location, dotted(path), message, hint, warn=warn)

    def where(self, row: tuple[int, int]) -> str:
        """Return a text that names a task by its number, and by the line of its row if it has one."""
        index, line = row
        return f"task {index} (row in line {line})" if self._manifest.items else f"task {index}"

    def words(self, combination: Spot) -> str:
        """Return a text short enough for a list that names a combination by its row and its matrix values."""
        given = ", ".join(f"{name}: {said(value)}" for name, value in combination.given.items())
        short = given if len(given) <= _WORDS else f"{given[: _WORDS - 1]}…"
        row = f"{combination.row.file}:{combination.row.line}" if self._manifest.items else ""
        return f"{row} ({short})" if row and short else row or short or "a task"

    def _otherwise(self, name: str, model: Shape, hint: str) -> str:
        """Return the hint, extended if a column or axis that templates use has the name of a parameter."""
        if not model.takes(name) or not any(name in used for used in self._uses.values()):
            return hint
        return f"{hint}; it sets the parameter `{name}`: call it otherwise if it is meant for texts alone"

    def _of_params(self, name: str, combination: Spot, message: str, hint: str, model_source: str) -> None:
        constant = name and name in self._uses and not self._uses[name] & combination.row.values.keys()
        if constant and (name, message) in self._told:
            return
        self._told.add((name, message))
        source = model_source if constant else self._row_words(combination) if name in self._uses else ""
        self.at(("params", name) if name else ("params",), message + source, hint)

    def _chosen(self, combination: Spot) -> str:
        """Return a text that names the source of the model, empty if it is the manifest."""
        for name in reversed(CHOICES):
            if name in combination.given:
                return f" (the {name} of `{dotted(self.path(name, combination))}`)"
            if not getattr(self._manifest, name) and name in combination.row.values:
                return f" (the {name} of {combination.row.file}:{combination.row.line})"
        return ""

    def _row_words(self, combination: Spot) -> str:
        return f" (with the row in {combination.row.file}:{combination.row.line})" if self._manifest.items else ""

    def _position(self, name: str, combination: Spot) -> int:
        return combination.at[self._groups[name]] if isinstance(combination.at, tuple) else 0
