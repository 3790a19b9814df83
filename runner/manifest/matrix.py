"""Read `matrix`: its axes, zipped axes, added rows, and the entries of `set` and `exclude`.

An axis is a list, a range of numbers, or a column of a data file.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from runner.manifest import rows
from runner.manifest.content_checks import BUILTIN_VARIABLES, value_error
from runner.manifest.diagnostics import closest_hint, describe_value
from runner.manifest.model import Axis, ErrorText, Matrix, SetRule
from runner.manifest.positions import pack_position
from runner.text import plain_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.manifest.content_checks import Inspector
    from runner.manifest.positions import KeyPath

#: keys that are not names of axes
PARTS = ("zip", "add", "set", "exclude")
#: keys of an entry of `set`
_RULE_KEYS = ("when", "then")
_RANGE_KEYS = ("from", "to", "step")
_EXAMPLES = {
    "zip": "write `zip: [{a: [1, 2], b: [x, y]}]`",
    "add": "write `add: [{a: 1, b: x}]`",
    "set": "write `set: [{when: {a: 1}, then: {b: x}}]`",
    "exclude": "write `exclude: [{a: 1, b: x}]`",
}
_AXIS_FORMS = "write `[a, b]`, `{from: 1, to: 9}` or `{file: rows.csv#column}`"
#: path of a data file and one of its columns, split at the `#` behind the suffix of a data file
_FILE_COLUMN = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, rows.SUFFIXES))}))#(.+)", re.IGNORECASE | re.DOTALL)


def read_matrix(written: Any, inspector: Inspector, axes: AxisReader) -> Matrix:
    """Return the matrix, and report what is wrong. A wrong axis has no values, a wrong entry no names."""
    if not isinstance(written, dict):
        message = f"expected axes (`name: [a, b]`), found {describe_value(written)}"
        inspector.add(("matrix",), message, "write one list an axis")
        return Matrix()
    return _MatrixReader(written, inspector, axes).read()


class _MatrixReader:
    """Reader of the parts of one matrix. Reports what is wrong."""

    def __init__(self, written: dict[str, Any], inspector: Inspector, axes: AxisReader) -> None:
        self._written = written
        self._inspector = inspector
        self._axis_reader = axes
        self._axis_names: set[str] = set()

    def read(self) -> Matrix:
        groups: list[tuple[Axis, ...]] = []
        for name, value in self._written.items():
            if name == "zip":
                groups += [self._read_zip(number, group) for number, group in enumerate(self._entries("zip"))]
            elif name not in PARTS:
                groups.append((self._read_axis(name, value, ("matrix", name)),))
        add = [self._read_added(number, row) for number, row in enumerate(self._entries("add"))]
        rules = [self._read_rule(number, rule) for number, rule in enumerate(self._entries("set"))]
        exclude = [
            self._read_condition(row, ("matrix", "exclude", at)) for at, row in enumerate(self._entries("exclude"))
        ]
        return Matrix(tuple(groups), tuple(add), tuple(rules), tuple(exclude))

    def _entries(self, part: str) -> list[Any]:
        written = self._written.get(part, [])
        if isinstance(written, list):
            return written
        self._inspector.add(("matrix", part), f"expected a list, found {describe_value(written)}", _EXAMPLES[part])
        return []

    def _read_axis(self, name: str, value: Any, path: KeyPath) -> Axis:
        if name in self._axis_names:
            self._inspector.add(path, f"`{name}` is an axis already", "keep one of the two", key=True)
            return Axis(name, (), path)
        self._axis_names.add(name)
        if not self._check_name(name, value, path):
            return Axis(name, (), path)
        return self._axis_reader.read(name, value, path)

    def _read_zip(self, number: int, group: Any) -> tuple[Axis, ...]:
        """Return zipped axes, all without values if they differ in length."""
        path: KeyPath = ("matrix", "zip", number)
        if not self._check_mapping(group, path, "zip"):
            return ()
        axes = tuple(self._read_axis(name, value, (*path, name)) for name, value in group.items())
        all_valid = all(len(axis.values) for axis in axes)
        if len({len(axis.values) for axis in axes}) == 1 or not all_valid:
            return axes
        lengths = ", ".join(f"`{axis.name}` has {len(axis.values):,}" for axis in axes)
        self._inspector.add(path, f"axes in pairs need as many values each: {lengths}", "give them the same number")
        return tuple(Axis(axis.name, (), axis.path) for axis in axes)

    def _read_added(self, number: int, row: Any) -> dict[str, Any]:
        path: KeyPath = ("matrix", "add", number)
        return row if self._check_mapping(row, path, "add") and self._check_names(row, path) else {}

    def _read_rule(self, number: int, rule: Any) -> SetRule:
        path: KeyPath = ("matrix", "set", number)
        if not self._check_mapping(rule, path, "set"):
            return SetRule({}, {})
        unknown = [key for key in rule if key not in _RULE_KEYS]
        for key in unknown:
            self._inspector.add((*path, key), "no such key here", closest_hint(key, _RULE_KEYS), key=True)
        for key in (key for key in _RULE_KEYS if key not in rule and not unknown):
            self._inspector.add(path, f"`{key}` is missing", _EXAMPLES["set"])
        when = self._read_condition(rule["when"], (*path, "when"), "set") if "when" in rule else {}
        has_values = "then" in rule and self._check_mapping(rule["then"], (*path, "then"), "set")
        then = rule["then"] if has_values and self._check_names(rule["then"], (*path, "then")) else {}
        return SetRule(when, then) if when and then else SetRule({}, {})

    def _read_condition(self, row: Any, path: KeyPath, part: str = "exclude") -> dict[str, Any]:
        if not self._check_mapping(row, path, part):
            return {}
        invalid = [name for name, value in row.items() if value == [] or value_error(value)]
        for name in invalid:
            message = f"expected a value, or a list of values it may be, found {describe_value(row[name])}"
            self._inspector.add((*path, name), message, "write `name: value` or `name: [a, b]`")
        return {} if invalid else row

    def _check_mapping(self, value: Any, path: KeyPath, part: str) -> bool:
        is_filled = isinstance(value, dict) and bool(value)
        if not is_filled:
            found = "an empty one" if value == {} else describe_value(value)
            self._inspector.add(path, f"expected a mapping (`name: value`), found {found}", _EXAMPLES[part])
        return is_filled

    def _check_names(self, row: dict[str, Any], path: KeyPath) -> bool:
        for name, value in row.items():
            self._inspector.warn_of_template(value, (*path, name))
        return not sum(not self._check_name(name, value, (*path, name)) for name, value in row.items())

    def _check_name(self, name: str, value: Any, path: KeyPath) -> bool:
        if self._inspector.report_credentials({name: value}, path[:-1]):
            return False
        if name in BUILTIN_VARIABLES:
            self._inspector.add(path, f"`{name}` is a variable of every template already", "rename it", key=True)
        return name not in BUILTIN_VARIABLES


class AxisReader:
    """Reader of axes with at most `max_tasks` values.

    A wrong axis is reported and returned without values.
    """

    def __init__(self, inspector: Inspector, manifest: Path, max_tasks: int) -> None:
        self._inspector = inspector
        self._manifest = manifest
        self._max_tasks = max_tasks

    def read(self, name: str, written: Any, path: KeyPath) -> Axis:
        """Return the axis written at `path`, without values if it is wrong."""
        if isinstance(written, list) and written:
            for number, value in enumerate(written):
                self._inspector.warn_of_template(value, (*path, number))
            return Axis(name, written, path)
        if isinstance(written, dict) and "file" in written and self._has_only_keys(written, ("file",), path):
            return self._read_file(name, written["file"], path)
        if isinstance(written, dict) and "from" in written and self._has_only_keys(written, _RANGE_KEYS, path):
            return Axis(name, self._read_range(written, path), path)
        if not isinstance(written, dict) or not written.keys() & {"file", "from"}:
            found = "an empty list" if written == [] else describe_value(written)
            self._inspector.add(path, f"expected a list with at least one value, found {found}", _AXIS_FORMS)
        return Axis(name, (), path)

    def _has_only_keys(self, written: dict[str, Any], known: Sequence[str], path: KeyPath) -> bool:
        unknown = [key for key in written if key not in known]
        for key in unknown:
            self._inspector.add((*path, key), "no such key here", closest_hint(key, known), key=True)
        return not unknown

    def _read_range(self, written: dict[str, Any], path: KeyPath) -> Sequence[Any]:
        """Return the numbers from `from` to `to`, both included, or nothing if the range is wrong."""
        first, last, step = map(plain_numbers, (written["from"], written.get("to"), written.get("step", 1)))
        for key, value in (("from", first), ("to", last), ("step", step)):
            if type(value) not in {int, float} or (key == "step" and not value):
                expected = "a number other than 0" if key == "step" else "a number"
                self._inspector.add((*path, key), f"expected {expected}, found {describe_value(value)}", _AXIS_FORMS)
                return ()
        start, exact_step = Fraction(str(first)), Fraction(str(step))
        count = (Fraction(str(last)) - start) // exact_step + 1
        if count < 1:
            hint = f"write `from: {last}, to: {first}`, or a `step` {'below' if step > 0 else 'above'} 0"
            self._inspector.add(path, f"from {first} to {last} there is nothing to count in steps of {step}", hint)
        elif not self._report_if_too_long(count, path):
            if all(isinstance(each, int) for each in (first, step)):
                return range(first, first + count * step, step)
            return [float(start + number * exact_step) for number in range(count)]
        return ()

    def _report_if_too_long(self, count: int, path: KeyPath) -> bool:
        if count > self._max_tasks:
            message = f"{count:,} values, and at most {self._max_tasks:,} tasks are allowed"
            self._inspector.add(path, message, "take some away, or raise `limits.max_tasks`")
        return count > self._max_tasks

    def _read_file(self, name: str, written: Any, path: KeyPath) -> Axis:
        file_path = (*path, "file")
        if not isinstance(written, str) or not written:
            message = f"expected the path of a data file, found {describe_value(written)}"
            self._inspector.add(file_path, message, _AXIS_FORMS)
            return Axis(name, (), path)
        split = _FILE_COLUMN.fullmatch(written)
        file = self._manifest.absolute().parent / (split[1] if split else written)
        if error := rows.data_file_error(file):
            self._inspector.add(file_path, *error)
            return Axis(name, (), path)
        values, positions = self._read_column(file, written, split[2] if split else "", file_path)
        return Axis(name, values, path, file, positions)

    def _read_column(self, file: Path, written: str, column: str, path: KeyPath) -> tuple[list[Any], list[int]]:
        values: list[Any] = []
        positions: list[int] = []
        is_text, known_errors = file.suffix.lower() == ".txt", len(self._inspector.diagnostics)
        label = rows.file_label(file, self._manifest)
        for number, row in enumerate(rows.read_rows(file, label, self._inspector.diagnostics)):
            if not number and (error := _column_error(row.values, written, column, is_text=is_text)):
                self._inspector.add(path, *error)
                return [], []
            name = "prompt" if is_text else column
            value = row.values.get(name)
            if type(value) is ErrorText:
                message = f"`{value}` is an error of a formula, and is no value"
                hint = "mend the formula, or empty the cell"
                self._inspector.diagnostics.add(row.locate(name), name, message, hint, file=row.file)
            if value is not None and value != "":
                values.append(value)
                positions.append(pack_position(*row.locate(name)))
            if self._report_if_too_long(len(values), path):
                return [], []
        if not values and len(self._inspector.diagnostics) == known_errors:
            self._inspector.add(path, f"the column `{column}` is empty", "fill it, or name another one")
        return values, positions


def _column_error(row: dict[str, Any], written: str, column: str, *, is_text: bool) -> tuple[str, str] | None:
    """Return message and hint if the file has no such column, else None."""
    names = ", ".join(f"`{name}`" for name in list(row)[:20])
    if is_text:
        return ("a .txt has lines and no columns", "write the path alone") if column else None
    if not column:
        return f"which column? the file has {names}", f"write `{written}#{next(iter(row), 'column')}`"
    return None if column in row else (f"the file has no column `{column}`", closest_hint(column, row, "it has"))
