"""Where a value came from, so that a mistake is told where it was written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.manifest.values import Mapping, dotted, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path as FilePath

    from runner.errors import Mistake
    from runner.manifest.formats import Row
    from runner.manifest.parse import Parsed
    from runner.manifest.recipe import Param, Path
    from runner.manifest.report import Report
    from runner.manifest.templates import TemplateError


class Spot(NamedTuple):
    """What a task is made from: its row, its values on the axes, and their positions."""

    row: Row
    values: tuple[Any, ...]
    at: tuple[int, ...]


class Blame:
    """Adds problems to a report, each where its value was written."""

    def __init__(self, parsed: Parsed, report: Report, params: Iterable[Param]) -> None:
        self._manifest = parsed.manifest
        self._places = parsed.places
        self._report = report
        self._axes = tuple(parsed.manifest.matrix)
        self._uses = {param.name: param.uses for param in params}

    def label(self, file: FilePath) -> str:
        """A data file as a person finds it: beside the manifest, in the manifest's own words."""
        folder = os.path.dirname(self._manifest.file)  # noqa: PTH120 - a label, `./a` stays `./a`
        beside = os.path.relpath(file, self._manifest.root)
        return str(file) if beside.startswith("..") else os.path.normpath(os.path.join(folder, beside))  # noqa: PTH118

    def mistake(self, mistake: Mistake, spot: Spot) -> None:
        """What a model says of one of its parameters."""
        name = mistake.name
        message = mistake.message
        if name in self._axes:
            self._axis(name, spot, message, mistake.hint)
        elif name in self._manifest.params:
            row = self._row_words(spot) if self._uses[name] & spot.row.values.keys() else ""
            self._at(("params", name), message + row, mistake.hint)
        elif name in spot.row.values:
            self.row(spot.row, name, message, mistake.hint)
        else:
            self._at(("params", name) if name else ("params",), message, mistake.hint)

    def template(self, error: TemplateError, spot: Spot) -> None:
        """A text that could not be made, most often for a variable that a row does not have."""
        path = error.path
        if not error.missing:
            self._at(path, error.message + self._row_words(spot), error.hint)
        elif error.missing in self._axes:
            self._axis(error.missing, spot, f"is nothing here, but `{dotted(path)}` uses it", "write a value")
        else:
            self.row(spot.row, error.missing, f"has no value in this row, but `{dotted(path)}` uses it",
                     "give it one, or use the filter `default('')`")  # fmt: skip

    def choice(self, name: str, spot: Spot, message: str, hint: str) -> None:
        """A provider or a model that cannot be."""
        if name in self._axes:
            self._axis(name, spot, message, hint)
        elif getattr(self._manifest, name) or name not in spot.row.values:
            self._at((name,), message, hint)
        else:
            self.row(spot.row, name, message, hint)

    def row(self, row: Row, name: str, message: str, hint: str) -> None:
        place = row.line, row.column
        if isinstance(row.values, Mapping) and name in row.values:
            place = unpack(row.values.value_at(name))
        self._report.add(place, name, message, hint, file=row.file)

    def whole(self, path: Path, message: str, hint: str) -> None:
        """What is wrong with the manifest and no single value."""
        self._at(path, message, hint)

    def where(self, row: tuple[int, int]) -> str:
        """A task in words: its number, and its line where it has a row."""
        index, line = row
        return f"task {index} (row in line {line})" if self._manifest.items else f"task {index}"

    def _row_words(self, spot: Spot) -> str:
        return f" (with the row in {spot.row.file}:{spot.row.line})" if self._manifest.items else ""

    def _axis(self, name: str, spot: Spot, message: str, hint: str) -> None:
        self._at(("matrix", name, spot.at[self._axes.index(name)]), message, hint)

    def _at(self, path: Path, message: str, hint: str) -> None:
        self._report.add(self._places.place(*path), dotted(path), message, hint)
