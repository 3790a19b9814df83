"""Trace values to the location at which they were written, so that a diagnostic points there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runner.manifest.model import MODEL_KEYS
from runner.manifest.positions import dotted_path, unpack_position, value_text
from runner.manifest.rows import file_label

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.errors import ParameterDiagnostic
    from runner.manifest.combinations import Combination
    from runner.manifest.diagnostics import Diagnostics
    from runner.manifest.model import SourceRow
    from runner.manifest.params import ModelDescription, Param
    from runner.manifest.parser import ParsedManifest
    from runner.manifest.positions import KeyPath
    from runner.manifest.templates import TemplateError

#: characters of the values that describe a combination
_MAX_DESCRIPTION = 60
REPEATED_HEADER_HINT = "take it out; it comes from tables that were joined"


class Provenance:
    """Origin of the values of tasks. Adds diagnostics at the location at which a value was written."""

    def __init__(self, parsed: ParsedManifest, diagnostics: Diagnostics, params: Iterable[Param]) -> None:
        self._manifest = parsed.manifest
        self._source_map = parsed.source_map
        self._diagnostics = diagnostics
        self._axes = parsed.manifest.matrix.axes
        self._group_indices = {
            axis.name: at for at, group in enumerate(parsed.manifest.matrix.groups) for axis in group
        }
        self._variables = {param.name: param.variables for param in params}
        self._reported: set[tuple[str, str]] = set()
        #: whether a row was reported as wrong since it repeats the header
        self.has_header_errors = False

    def file_label(self, file: Path) -> str:
        """Return the path of a data file as messages show it."""
        return file_label(file, Path(self._manifest.file))

    def report_parameter(
        self, diagnostic: ParameterDiagnostic, combination: Combination, model: ModelDescription
    ) -> None:
        """Report a diagnostic of the model about one of its parameters."""
        name, message, hint = diagnostic.name, diagnostic.message, diagnostic.hint
        is_from_row = name in combination.row.values or bool(
            self._variables.get(name, frozenset()) - combination.given.keys()
        )
        if (not name or is_from_row) and name not in combination.given and self._report_header(combination.row):
            return
        if empty := next((need for need in diagnostic.needs if combination.row.values.get(need, 0) in (None, "")), ""):
            message = f"is empty in this row, and {message}"
            self.report_row(combination.row, empty, message, "fill it in, or take the row out")
            return
        model_source = self._model_source(combination)
        if model_source and name and not model.takes(name):
            hint = f"{hint}; or give it only to models that have it, with `matrix.set`"
        if name in combination.given:
            self.report_matrix_value(name, combination, message, self._rename_hint(name, model, hint))
        elif name in self._manifest.params or name not in combination.row.values:
            self._report_params(name, combination, message, hint, model_source)
        else:
            self.report_row(combination.row, name, message, self._rename_hint(name, model, hint))

    def report_template_error(self, error: TemplateError, combination: Combination) -> None:
        """Report a template that could not be rendered, most often for a variable that a row does not have."""
        path, name = error.path, error.missing
        if self._report_header(combination.row):
            return
        if not name:
            self.report_at(path, error.message + self._row_source(combination), error.hint)
        elif name in combination.given:
            message = f"is nothing here, but `{dotted_path(path)}` uses it"
            self.report_matrix_value(name, combination, message, "write a value")
        elif isinstance(combination.source, int) and name not in combination.row.values:
            added: KeyPath = ("matrix", "add", combination.source)
            message = f"gives no `{name}`, but `{dotted_path(path)}` uses it"
            self.report_at(added, message, f"add `{name}: …` to this row")
        elif self._manifest.matrix.provides(name) and name not in combination.row.values:
            message = f"`{name}` is given by `matrix.add` or `matrix.set` to some tasks, and this is used by others"
            self.report_at(path, message, "use the filter `default('')`, or make it an axis")
        else:
            message = f"has no value in this row, but `{dotted_path(path)}` uses it"
            self.report_row(combination.row, name, message, "give it one, or use the filter `default('')`")

    def report_model_choice(self, name: str, combination: Combination, message: str, hint: str) -> None:
        """Report a provider or a model that does not exist."""
        if name in combination.given:
            self.report_matrix_value(name, combination, message, hint)
        elif getattr(self._manifest, name) or name not in combination.row.values:
            self.report_at((name,), message, hint)
        else:
            self.report_row(combination.row, name, message, hint)

    def report_matrix_value(self, name: str, combination: Combination, message: str, hint: str) -> None:
        """Report an error in a value that the matrix gives."""
        axis = self._axes.get(name)
        path = self.matrix_path(name, combination)
        if axis and axis.file and path == axis.path:
            location = unpack_position(axis.positions[self._axis_index(name, combination)])
            self._diagnostics.add(location, name, message, hint, file=self.file_label(axis.file))
        else:
            self.report_at(path, message, hint)

    def matrix_path(self, name: str, combination: Combination) -> KeyPath:
        """Return the path at which the matrix gives a value, or the path of the axis if the value comes from a file."""
        for number in reversed(combination.changed_by):
            if name in self._manifest.matrix.set[number].then:
                return ("matrix", "set", number, "then", name)
        if isinstance(combination.source, int):
            return ("matrix", "add", combination.source, name)
        axis = self._axes[name]
        return axis.path if axis.file else (*axis.path, self._axis_index(name, combination))

    def report_row(self, row: SourceRow, name: str, message: str, hint: str, *, warn: bool = False) -> None:
        """Report an error in a value of a row, or a warning if `warn` is set."""
        if not warn and self._report_header(row):
            return
        self._diagnostics.add(row.locate(name), name, message, hint, file=row.file, warn=warn)

    def report_cell(self, name: str, combination: Combination, message: str, hint: str) -> None:
        """Report an error in a value of a task's row."""
        self.report_row(combination.row, name, message, hint)

    def report_column(self, first: SourceRow, name: str, message: str, hint: str, *, warn: bool = False) -> None:
        """Report an error or a warning on the name of a column, in the header of its file or at `items`."""
        if self._manifest.items and self._manifest.items.file:
            location = first.syntax.locate_name(name) if first.syntax is not None else None
            self._diagnostics.add(location or (1, 1), "", message, hint, file=first.file, warn=warn)
        else:
            self.report_at(("items",), message, hint, warn=warn)

    def report_at(self, path: KeyPath, message: str, hint: str, *, key: bool = False, warn: bool = False) -> None:
        """Report an error or a warning at a path of the manifest, at its key if `key` is set."""
        location = self._source_map.key_location(*path) if key else self._source_map.location(*path)
        self._diagnostics.add(location, dotted_path(path), message, hint, warn=warn)

    def describe_task(self, row: tuple[int, int]) -> str:
        """Return a text that names a task by its number, and by the line of its row if it has one."""
        index, line = row
        return f"task {index} (row in line {line})" if self._manifest.items else f"task {index}"

    def describe_combination(self, combination: Combination) -> str:
        """Return a text short enough for a list that names a combination by its row and its matrix values."""
        given = ", ".join(f"{name}: {value_text(value)}" for name, value in combination.given.items())
        short = given if len(given) <= _MAX_DESCRIPTION else f"{given[: _MAX_DESCRIPTION - 1]}…"
        row = f"{combination.row.file}:{combination.row.line}" if self._manifest.items else ""
        return f"{row} ({short})" if row and short else row or short or "a task"

    def _report_header(self, row: SourceRow) -> bool:
        """Report a wrong row once if it repeats the header, and return whether it does."""
        if not row.repeats_header():
            return False
        self.has_header_errors = True
        message = "this row repeats the header, and its values are wrong"
        self._diagnostics.add((row.line, row.column), "", message, REPEATED_HEADER_HINT, file=row.file)
        return True

    def _rename_hint(self, name: str, model: ModelDescription, hint: str) -> str:
        """Return the hint, extended if a column or axis that templates use has the name of a parameter."""
        if not model.takes(name) or not any(name in used for used in self._variables.values()):
            return hint
        return f"{hint}; it sets the parameter `{name}`: call it otherwise if it is meant for texts alone"

    def _report_params(self, name: str, combination: Combination, message: str, hint: str, model_source: str) -> None:
        constant = name and name in self._variables and not self._variables[name] & combination.row.values.keys()
        if constant and (name, message) in self._reported:
            return
        self._reported.add((name, message))
        source = model_source if constant else self._row_source(combination) if name in self._variables else ""
        self.report_at(("params", name) if name else ("params",), message + source, hint)

    def _model_source(self, combination: Combination) -> str:
        """Return a text that names the source of the model, empty if it is the manifest."""
        for name in reversed(MODEL_KEYS):
            if name in combination.given:
                return f" (the {name} of `{dotted_path(self.matrix_path(name, combination))}`)"
            if not getattr(self._manifest, name) and name in combination.row.values:
                return f" (the {name} of {combination.row.file}:{combination.row.line})"
        return ""

    def _row_source(self, combination: Combination) -> str:
        return f" (with the row in {combination.row.file}:{combination.row.line})" if self._manifest.items else ""

    def _axis_index(self, name: str, combination: Combination) -> int:
        return combination.source[self._group_indices[name]] if isinstance(combination.source, tuple) else 0
