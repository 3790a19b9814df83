"""Read the values of a matrix axis: a list, a range of numbers, or a column of a data file."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from runner.manifest import items
from runner.manifest.model import Axis
from runner.manifest.teach import closest, described

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.manifest.content import Inspector

    Where = tuple[str | int, ...]

#: path of a data file and one of its columns, split at the `#` behind the suffix of a data file
_COLUMN = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, items.SUFFIXES))}))#(.+)", re.IGNORECASE | re.DOTALL)
_FORMS = "write `[a, b]`, `{from: 1, to: 9}` or `{file: rows.csv#column}`"
_BOUNDS = ("from", "to", "step")


class AxisReader:
    """Reader of axes with at most `max_tasks` values.

    A wrong axis is reported and returned without values.
    """

    def __init__(self, inspector: Inspector, manifest: Path, max_tasks: int) -> None:
        self._tell = inspector
        self._manifest = manifest
        self._most = max_tasks

    def read(self, name: str, written: Any, path: Where) -> Axis:
        """Return the axis written at `path`, without values if it is wrong."""
        if isinstance(written, list) and written:
            for number, value in enumerate(written):
                self._tell.data(value, (*path, number))
            return Axis(name, written, path)
        if isinstance(written, dict) and "file" in written and self._has_only(written, ("file",), path):
            return self._of_file(name, written["file"], path)
        if isinstance(written, dict) and "from" in written and self._has_only(written, _BOUNDS, path):
            return Axis(name, self._count(written, path), path)
        if not isinstance(written, dict) or not written.keys() & {"file", "from"}:
            found = "an empty list" if written == [] else described(written)
            self._tell.add(path, f"expected a list with at least one value, found {found}", _FORMS)
        return Axis(name, (), path)

    def _has_only(self, written: dict[str, Any], known: Sequence[str], path: Where) -> bool:
        unknown = [key for key in written if key not in known]
        for key in unknown:
            self._tell.add((*path, key), "no such key here", closest(key, known), key=True)
        return not unknown

    def _count(self, written: dict[str, Any], path: Where) -> Sequence[Any]:
        """Return the numbers from `from` to `to`, both included, or nothing if the range is wrong."""
        first, last, step = written["from"], written.get("to"), written.get("step", 1)
        for key, value in (("from", first), ("to", last), ("step", step)):
            if type(value) not in {int, float} or (key == "step" and not value):
                expected = "a number other than 0" if key == "step" else "a number"
                self._tell.add((*path, key), f"expected {expected}, found {described(value)}", _FORMS)
                return ()
        start, exact_step = Fraction(str(first)), Fraction(str(step))
        count = (Fraction(str(last)) - start) // exact_step + 1
        if count < 1:
            hint = f"write `from: {last}, to: {first}`, or a `step` {'below' if step > 0 else 'above'} 0"
            self._tell.add(path, f"from {first} to {last} there is nothing to count in steps of {step}", hint)
        elif not self._is_too_long(count, path):
            if all(isinstance(each, int) for each in (first, step)):
                return range(first, first + count * step, step)
            return [float(start + number * exact_step) for number in range(count)]
        return ()

    def _is_too_long(self, count: int, path: Where) -> bool:
        if count > self._most:
            message = f"{count:,} values, and at most {self._most:,} tasks are allowed"
            self._tell.add(path, message, "take some away, or raise `limits.max_tasks`")
        return count > self._most

    def _of_file(self, name: str, written: Any, path: Where) -> Axis:
        where = (*path, "file")
        if not isinstance(written, str) or not written:
            self._tell.add(where, f"expected the path of a data file, found {described(written)}", _FORMS)
            return Axis(name, (), path)
        split = _COLUMN.fullmatch(written)
        file = self._manifest.absolute().parent / (split[1] if split else written)
        if error := items.unfit(file):
            self._tell.add(where, *error)
            return Axis(name, (), path)
        values, lines = self._column(file, written, split[2] if split else "", where)
        return Axis(name, values, path, file, lines)

    def _column(self, file: Path, written: str, column: str, where: Where) -> tuple[list[Any], list[int]]:
        values: list[Any] = []
        lines: list[int] = []
        is_text, known_errors = file.suffix.lower() == ".txt", len(self._tell.report)
        for number, row in enumerate(items.rows(file, items.label(file, self._manifest), self._tell.report)):
            if not number and (error := _no_such(row.values, written, column, is_text=is_text)):
                self._tell.add(where, *error)
                return [], []
            value = row.values.get("prompt" if is_text else column)
            if value is not None and value != "":
                values.append(value)
                lines.append(row.line)
            if self._is_too_long(len(values), where):
                return [], []
        if not values and len(self._tell.report) == known_errors:
            self._tell.add(where, f"the column `{column}` is empty", "fill it, or name another one")
        return values, lines


def _no_such(row: dict[str, Any], written: str, column: str, *, is_text: bool) -> tuple[str, str] | None:
    """Return message and hint if the file has no such column, else None."""
    names = ", ".join(f"`{name}`" for name in list(row)[:20])
    if is_text:
        return ("a .txt has lines and no columns", "write the path alone") if column else None
    if not column:
        return f"which column? the file has {names}", f"write `{written}#{next(iter(row), 'column')}`"
    return None if column in row else (f"the file has no column `{column}`", closest(column, row, "it has"))
