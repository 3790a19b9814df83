"""Read `matrix`: axes, zipped axes, added rows, changes and exclusions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.manifest.content import COUNTERS, flaw
from runner.manifest.model import Axis, Change, Matrix
from runner.manifest.teach import closest, described

if TYPE_CHECKING:
    from runner.manifest.axis import AxisReader
    from runner.manifest.content import Inspector

    Where = tuple[str | int, ...]

#: keys that are not names of axes
PARTS = ("zip", "add", "set", "exclude")
_SHOWN = {
    "zip": "write `zip: [{a: [1, 2], b: [x, y]}]`",
    "add": "write `add: [{a: 1, b: x}]`",
    "set": "write `set: [{when: {a: 1}, then: {b: x}}]`",
    "exclude": "write `exclude: [{a: 1, b: x}]`",
}
#: keys of an entry of `set`
_RULE = ("when", "then")


def read(written: Any, inspector: Inspector, axes: AxisReader) -> Matrix:
    """Return the matrix, and report what is wrong. A wrong axis has no values, a wrong entry no names."""
    if not isinstance(written, dict):
        message = f"expected axes (`name: [a, b]`), found {described(written)}"
        inspector.add(("matrix",), message, "write one list an axis")
        return Matrix()
    return _Reader(written, inspector, axes).matrix()


class _Reader:
    """Reader of the parts of one matrix. Reports what is wrong."""

    def __init__(self, written: dict[str, Any], inspector: Inspector, axes: AxisReader) -> None:
        self._written = written
        self._tell = inspector
        self._axes = axes
        self._known: set[str] = set()

    def matrix(self) -> Matrix:
        groups: list[tuple[Axis, ...]] = []
        for name, value in self._written.items():
            if name == "zip":
                groups += [self._pairs(number, group) for number, group in enumerate(self._entries("zip"))]
            elif name not in PARTS:
                groups.append((self._axis(name, value, ("matrix", name)),))
        add = [self._added(number, row) for number, row in enumerate(self._entries("add"))]
        rules = [self._rule(number, rule) for number, rule in enumerate(self._entries("set"))]
        exclude = [self._condition(row, ("matrix", "exclude", at)) for at, row in enumerate(self._entries("exclude"))]
        return Matrix(tuple(groups), tuple(add), tuple(rules), tuple(exclude))

    def _entries(self, part: str) -> list[Any]:
        written = self._written.get(part, [])
        if isinstance(written, list):
            return written
        self._tell.add(("matrix", part), f"expected a list, found {described(written)}", _SHOWN[part])
        return []

    def _axis(self, name: str, value: Any, path: Where) -> Axis:
        if name in self._known:
            self._tell.add(path, f"`{name}` is an axis already", "keep one of the two", key=True)
            return Axis(name, (), path)
        self._known.add(name)
        return self._axes.read(name, value, path) if self._may_be_called(name, value, path) else Axis(name, (), path)

    def _pairs(self, number: int, group: Any) -> tuple[Axis, ...]:
        """Return zipped axes, all without values if they differ in length."""
        path: Where = ("matrix", "zip", number)
        if not self._is_mapping(group, path, "zip"):
            return ()
        axes = tuple(self._axis(name, value, (*path, name)) for name, value in group.items())
        all_valid = all(len(axis.values) for axis in axes)
        if len({len(axis.values) for axis in axes}) == 1 or not all_valid:
            return axes
        lengths = ", ".join(f"`{axis.name}` has {len(axis.values):,}" for axis in axes)
        self._tell.add(path, f"axes in pairs need as many values each: {lengths}", "give them the same number")
        return tuple(Axis(axis.name, (), axis.path) for axis in axes)

    def _added(self, number: int, row: Any) -> dict[str, Any]:
        path: Where = ("matrix", "add", number)
        return row if self._is_mapping(row, path, "add") and self._may_give(row, path) else {}

    def _rule(self, number: int, rule: Any) -> Change:
        path: Where = ("matrix", "set", number)
        if not self._is_mapping(rule, path, "set"):
            return Change({}, {})
        unknown = [key for key in rule if key not in _RULE]
        for key in unknown:
            self._tell.add((*path, key), "no such key here", closest(key, _RULE), key=True)
        for key in (key for key in _RULE if key not in rule and not unknown):
            self._tell.add(path, f"`{key}` is missing", _SHOWN["set"])
        when = self._condition(rule["when"], (*path, "when"), "set") if "when" in rule else {}
        has_values = "then" in rule and self._is_mapping(rule["then"], (*path, "then"), "set")
        then = rule["then"] if has_values and self._may_give(rule["then"], (*path, "then")) else {}
        return Change(when, then) if when and then else Change({}, {})

    def _condition(self, row: Any, path: Where, part: str = "exclude") -> dict[str, Any]:
        if not self._is_mapping(row, path, part):
            return {}
        invalid = [name for name, value in row.items() if value == [] or flaw(value)]
        for name in invalid:
            message = f"expected a value, or a list of values it may be, found {described(row[name])}"
            self._tell.add((*path, name), message, "write `name: value` or `name: [a, b]`")
        return {} if invalid else row

    def _is_mapping(self, value: Any, path: Where, part: str) -> bool:
        is_filled = isinstance(value, dict) and bool(value)
        if not is_filled:
            found = "an empty one" if value == {} else described(value)
            self._tell.add(path, f"expected a mapping (`name: value`), found {found}", _SHOWN[part])
        return is_filled

    def _may_give(self, row: dict[str, Any], path: Where) -> bool:
        for name, value in row.items():
            self._tell.data(value, (*path, name))
        return not sum(not self._may_be_called(name, value, (*path, name)) for name, value in row.items())

    def _may_be_called(self, name: str, value: Any, path: Where) -> bool:
        if self._tell.credentials({name: value}, path[:-1]):
            return False
        if name in COUNTERS:
            self._tell.add(path, f"`{name}` is a variable of every template already", "rename it", key=True)
        return name not in COUNTERS
