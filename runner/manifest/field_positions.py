"""Find where the values of a row stand in a data file, when a message needs it.

Rows keep the lines that they were read from, and the syntax of these; nothing is searched for a row without a message.
"""

from __future__ import annotations

import re
from json import JSONDecoder
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: characters of a line of JSON of which the column is counted
_LONGEST_LINE = 1 << 16
_WHITESPACE = re.compile(r"[ \t\r\n]*")
_DECODER = JSONDecoder()


class RowSyntax(Protocol):
    """Syntax of the rows of a data file."""

    def locate(self, lines: Sequence[str], name: str) -> tuple[int, int] | None:
        """Return where the value called `name` stands: lines below the first, from 0, and the column, from 1.

        Columns count characters. Return None if there is no such value.
        """

    def locate_name(self, name: str) -> tuple[int, int] | None:
        """Return line and column of a name in the header, or None if there is no header or no such name."""

    def is_header(self, values: Mapping[str, Any]) -> bool:
        """Return whether the values of a row are the names of their columns."""


class TableSyntax:
    """Syntax of the records of a CSV or TSV. In the latter (`is_quoted` false) quotes are text."""

    def __init__(self, delimiter: str, *, is_quoted: bool) -> None:
        #: names of the columns, and the line and text of the header, once they were read
        self.names: Sequence[str] = ()
        self.header: tuple[int, Sequence[str]] = (1, ())
        to_delimiter = f"[^{re.escape(delimiter)}]*{re.escape(delimiter)}"
        self._field = re.compile(f'(?:"[^"]*(?:""[^"]*)*")?{to_delimiter}' if is_quoted else to_delimiter)

    def locate(self, lines: Sequence[str], name: str) -> tuple[int, int] | None:
        """Return where the field of a column begins, with its quote if it has one."""
        return self.locate_field(lines, self.names.index(name)) if name in self.names else None

    def locate_name(self, name: str) -> tuple[int, int] | None:
        """Return line and column of the name of a column."""
        line, lines = self.header
        found = self.locate(lines, name)
        return (line + found[0], found[1]) if found else None

    def locate_field(self, lines: Sequence[str], index: int) -> tuple[int, int] | None:
        """Return where a field begins that has `index` others before it, or None if there are not so many."""
        text, at = "".join(lines), 0
        for _ in range(index):
            found = self._field.match(text, at)
            if found is None:
                return None
            at = found.end()
        for below, line in enumerate(lines):
            if at < len(line) or below == len(lines) - 1:
                return below, at + 1
            at -= len(line)
        return None

    def is_header(self, values: Mapping[str, Any]) -> bool:
        """Return whether the values of a row are the names of their columns, but for empty ones."""
        return are_names(values)


class JsonSyntax:
    """Syntax of an object of JSON that begins at offset `begin` of a text, perhaps after its key."""

    def __init__(self, begin: int = 0) -> None:
        self._begin = begin

    def locate(self, lines: Sequence[str], name: str) -> tuple[int, int] | None:
        """Return where a value begins; of two with one key the last counts."""
        text, found = lines[0], -1
        try:
            at = _skip(text, self._begin)
            if text[at] == '"':
                _, at = _DECODER.raw_decode(text, at)
                at = _skip(text, _skip(text, at) + 1)
            at = _skip(text, at + 1)
            while text[at] == '"':
                key, at = _DECODER.raw_decode(text, at)
                at = _skip(text, _skip(text, at) + 1)
                found = at if key == name else found
                _, at = _DECODER.raw_decode(text, at)
                at = _skip(text, at)
                at = _skip(text, at + 1) if text[at] == "," else at
        except (ValueError, IndexError, RecursionError):
            return None
        if found < 0:
            return None
        # in a file that is one line of 64 MiB, each of a million errors would search it to its beginning
        before = text.rfind("\n", max(0, found - _LONGEST_LINE), found)
        is_known = before >= 0 or found <= _LONGEST_LINE
        return text.count("\n", self._begin, found), found - before if is_known else 1

    def locate_name(self, name: str) -> tuple[int, int] | None:
        """Return None: there is no header."""

    def is_header(self, values: Mapping[str, Any]) -> bool:  # noqa: ARG002 - see RowSyntax
        """Return False: there is no header."""
        return False


def are_names(values: Mapping[str, Any]) -> bool:
    """Return whether each value of a row of texts is the name of its column, but for empty ones."""
    given = [(name.casefold(), value.strip().casefold()) for name, value in values.items() if value]
    return bool(given) and all(name == value for name, value in given)


def _skip(text: str, at: int) -> int:
    """Return the offset behind blanks and line ends."""
    found = _WHITESPACE.match(text, at)
    return found.end() if found else at
