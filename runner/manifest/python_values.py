"""Build the nodes of a manifest from Python values, so that they are checked as those of a file are.

Every mapping and list gets a number in the place of a line, and what it holds one in the place of a column. So every
check works unchanged, and `PythonValues.locate` turns the location of a diagnostic into the path of its value.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from itertools import islice
from numbers import Integral, Real
from pathlib import PurePath
from sys import intern
from typing import TYPE_CHECKING, Any, Final

from runner.errors import Diagnostic
from runner.manifest.positions import COLUMN_BITS, YamlMapping, YamlSequence, dotted_path
from runner.manifest.yaml_reader import INTEGERS, MAX_DEPTH

if TYPE_CHECKING:
    from collections.abc import Iterator

#: name of the file in diagnostics
FILE: Final = "<python>"
#: default of `limits.max_tasks`, and the rows that are read for each task that it allows: more can only be too many
_MAX_TASKS, _ROWS_PER_TASK = 10_000, 10
_PLAIN = frozenset((str, int, float, bool, type(None)))
#: a location in a message, and what names a row where `items` are Python values as well
_LOCATION = re.compile(rf"{re.escape(FILE)}:(\d+)")
_ROW = re.compile(rf"{re.escape(FILE)}:(\d+)|\b(row in|as) line (\d+)")
#: what pandas writes into an empty cell, besides NaN and None
_EMPTY_TYPES = frozenset(("NAType", "NaTType"))


class PythonValues:
    """The values of one manifest as nodes. `root` is its mapping, `diagnostics` holds what no file could hold.

    Rows of `items` may come from any iterable, which is read once. Text of rows is data and never a template, as in a
    data file. Numbers of numpy and pandas become plain ones, and NaN becomes an empty cell. A column of whole numbers
    that a data frame holds as floats, because a cell is missing, gets its whole numbers back: another spelling of a
    value would be another task.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.diagnostics: list[Diagnostic] = []
        #: number of the parent, step from it, and the node itself, by number from 1
        self._containers: list[tuple[int, str | int, YamlMapping | YamlSequence]] = []
        self._max_rows = _max_rows(values)
        self.root: YamlMapping = self._mapping({"version": 1, **values}, 0, "", 1)

    def locate(self, diagnostic: Diagnostic) -> Diagnostic:
        """Return a diagnostic with the path of its value, such as `items[3].subject`, in the place of its location."""
        rows_are_ours = isinstance(self.root.get("items"), YamlSequence)
        message = (_ROW if rows_are_ours else _LOCATION).sub(self._located, diagnostic.message)
        if diagnostic.file != FILE:
            return replace(diagnostic, message=message)
        path, key = self._path(diagnostic.line, diagnostic.column), diagnostic.key
        if rows_are_ours and path[:1] == ("items",) and len(path) > 1 and not key.startswith("items["):
            key = dotted_path((*path[:2], key)) if key else dotted_path(path)
        return Diagnostic(FILE, 0, 0, key or dotted_path(path), message, diagnostic.hint)

    def _located(self, found: re.Match[str]) -> str:
        words = found.group(2) if found.re is _ROW else None
        path = dotted_path(self._path(int(found[3] if words else found[1]), 1))
        return f"{words.removesuffix(' in')} {path}" if words else path

    def _path(self, line: int, column: int) -> tuple[str | int, ...]:
        """Return the path of a value: of a container itself in column 1, of what it holds in the columns from 2."""
        if not 0 < line <= len(self._containers):
            return ()
        parent, step, node = self._containers[line - 1]
        path = () if line == 1 else (*self._path(parent, 1), step)
        if column < 2:  # noqa: PLR2004 - see above
            return path
        return (*path, list(node)[column - 2] if isinstance(node, YamlMapping) else column - 2)

    def _value(self, value: Any, parent: int, step: str | int, depth: int) -> Any:
        """Return a value of a manifest for any Python value. What a file could not hold is reported."""
        if type(value) is str:
            return value if value.isascii() or _is_encodable(value) else self._refuse(value, parent, step)
        if type(value) not in _PLAIN:
            value = _plain(value)
        if isinstance(value, Mapping | list):
            if depth > MAX_DEPTH:
                hint = "no manifest needs that; does it hold itself?"
                self._report(parent, step, f"nested deeper than {MAX_DEPTH} levels", hint)
                return None
            if isinstance(value, Mapping):
                return self._mapping(value, parent, step, depth)
            return self._sequence(value, parent, step, depth)
        if type(value) is float and not math.isfinite(value):
            if math.isinf(value):
                self._report(parent, step, "an infinite number", "write a number, or None for an empty cell")
                return 0.0
            if self._path(parent, 1)[:1] != ("items",):
                self._report(parent, step, "not a number (NaN)", "leave it out; only cells of `items` may be empty")
            return None
        if type(value) is int and value not in INTEGERS:
            self._report(parent, step, "a whole number beyond 64 bits", "make it text if it is an identifier")
            return str(value)
        return value if type(value) in _PLAIN else self._refuse(value, parent, step)

    def _mapping(self, values: Mapping[Any, Any], parent: int, step: str | int, depth: int) -> YamlMapping:
        line = len(self._containers) + 1
        node = YamlMapping((line << COLUMN_BITS) + 1)
        self._containers.append((parent, step, node))
        for key, value in values.items():
            if not isinstance(key, str):
                self._report(
                    line, repr(key)[:40], f"a key must be text, found {key!r:.40}", "name every column by text"
                )
                continue
            name = intern(str.__str__(key))
            if line == 1 and name == "items" and not isinstance(value, Mapping | str | bytes):
                value = _rows(value, self._max_rows)  # noqa: PLW2901 - an iterable can be read only once
            node[name] = self._value(value, line, name, depth + 1)
            at = (line << COLUMN_BITS) + len(node) + 1
            node.positions.extend((at, self._position(node[name], at)))
        return node

    def _sequence(self, values: list[Any], parent: int, step: str | int, depth: int) -> YamlSequence:
        line = len(self._containers) + 1
        node = YamlSequence((line << COLUMN_BITS) + 1)
        self._containers.append((parent, step, node))
        for number, value in enumerate(values):
            node.append(self._value(value, line, number, depth + 1))
            node.positions.append(self._position(node[-1], (line << COLUMN_BITS) + number + 2))
        return node

    def _position(self, value: Any, at: int) -> int:
        return value.position if isinstance(value, YamlMapping | YamlSequence) else at

    def _refuse(self, value: Any, parent: int, step: str | int) -> str:
        """Report a value, and return another in its place, so that it is reported once and not as missing as well."""
        kind = "text with half of a surrogate pair" if isinstance(value, str) else f"{type(value).__name__!r}"
        self._report(parent, step, f"expected text, a number, True, False, a list or a mapping, found {kind}",
                     "convert it first, e.g. with str()")  # fmt: skip
        return "?"

    def _report(self, parent: int, step: str | int, message: str, hint: str) -> None:
        key = dotted_path((*self._path(parent, 1), step))
        self.diagnostics.append(Diagnostic(FILE, parent, 1, key, message, hint))


def _max_rows(values: Mapping[str, Any]) -> int:
    """Return how many rows are read, so that an endless iterable is reported as too many tasks."""
    limits = values.get("limits")
    allowed = limits.get("max_tasks", _MAX_TASKS) if isinstance(limits, Mapping) else _MAX_TASKS
    return _ROWS_PER_TASK * (allowed if isinstance(allowed, int) else _MAX_TASKS) + 1


def _rows(value: Any, most: int) -> Any:
    """Return the rows of an iterable as a list, or the value itself if it is none."""
    if callable(getattr(value, "to_dict", None)) and hasattr(value, "columns"):
        value = value.to_dict("records")  # a data frame, whose own iterator yields the names of its columns
    return _with_whole_numbers(list(islice(value, most))) if isinstance(value, Iterable) else value


def _with_whole_numbers(rows: list[Any]) -> list[Any]:
    """Return rows in which a column of floats that are whole numbers or missing has whole numbers."""
    missing: set[Any] = set()
    broken: set[Any] = set()
    for row in rows:
        for name, value in row.items() if isinstance(row, Mapping) else ():
            if (
                value is None
                or type(value).__name__ in _EMPTY_TYPES
                or (isinstance(value, float) and math.isnan(value))
            ):
                missing.add(name)
            elif not (isinstance(value, float) and value.is_integer()):
                broken.add(name)
    whole = missing - broken
    if not whole:
        return rows
    return [
        {name: int(value) if name in whole and isinstance(value, float) and value.is_integer() else value
         for name, value in row.items()}
        if isinstance(row, Mapping) else row
        for row in rows
    ]  # fmt: skip


def _plain(value: Any) -> Any:
    """Return the plain value that a value of another class stands for: a scalar, a mapping or a list."""
    if hasattr(value, "shape") and callable(getattr(value, "tolist", None)):
        value = value.tolist()  # a scalar or an array of numpy
    if type(value).__name__ in _EMPTY_TYPES:
        return None
    match value:
        case bool() | None | Mapping() | list():
            return value
        case str():
            return str.__str__(value)
        case Integral():
            return int(value)
        case Decimal() | Real():
            return float(value)
        case dt.date() | dt.time():
            return value.isoformat()
        case PurePath():
            return str(value)
        case bytes() | bytearray() | memoryview() | set() | frozenset():
            return value  # neither text nor in an order
        case Iterable():
            return list(_bounded(value))
        case _:
            return value


def _bounded(values: Iterable[Any]) -> Iterator[Any]:
    """Yield at most as many values as any axis may have."""
    return islice(values, 10_000_001)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
