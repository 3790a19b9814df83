"""Read `read`: axes, zipped axes, added rows, changes and exclusions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.manifest.content import BUILTIN_VARIABLES, value_error
from runner.manifest.model import Axis, Matrix, SetRule
from runner.manifest.teach import closest_hint, describe_value

if TYPE_CHECKING:
    from runner.manifest.axis import AxisReader
    from runner.manifest.content import Inspector

    KeyPath = tuple[str | int, ...]

#: keys that are not names of axes
PARTS = ("zip", "add", "set", "exclude")
_EXAMPLES = {
    "zip": "write `zip: [{a: [1, 2], b: [x, y]}]`",
    "add": "write `add: [{a: 1, b: x}]`",
    "set": "write `set: [{when: {a: 1}, then: {b: x}}]`",
    "exclude": "write `exclude: [{a: 1, b: x}]`",
}
#: keys of an entry of `set`
_RULE_KEYS = ("when", "then")


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
        return (
            self._axis_reader.read(name, value, path) if self._check_name(name, value, path) else Axis(name, (), path)
        )

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
