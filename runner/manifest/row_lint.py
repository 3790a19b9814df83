"""Warn of rows that are probably not meant as they stand: what is sent has marks of the program that wrote the table.

An error of a formula in a workbook is an error here too: it stands where a value should.

The marks are a header among the rows, quotes around whole values, characters that nobody sees, and rows that differ in
such characters alone, which are bought as two. Only values that a text uses or that set a parameter count.
"""

from __future__ import annotations

import re
from array import array
from typing import TYPE_CHECKING, NamedTuple

from runner.manifest.identity import canonical_text
from runner.manifest.model import ErrorText
from runner.manifest.provenance import REPEATED_HEADER_HINT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.manifest.model import SourceRow
    from runner.manifest.provenance import Provenance


#: characters without a width that no text needs; those that join letters and emoji are not among them
_INVISIBLE = "\u00ad\u200b\u2060\ufeff"
#: blanks that look like the usual one
_BLANKS = "\u00a0\u2007\u202f"
_HIDDEN = re.compile(f"[{_INVISIBLE}{_BLANKS}]")
_PLAIN = {**dict.fromkeys(map(ord, _INVISIBLE)), **dict.fromkeys(map(ord, _BLANKS), " ")}
#: marks around a whole value, opening and closing, that word processors put in the place of quotes
_QUOTES = frozenset(("“”", "„“", "‘’", "‚‘", "””", "’’", "＂＂"))
#: files in which straight quotes are text
_QUOTES_ARE_TEXT = (".tsv", ".txt")
#: rows that are compared with those that hold hidden characters, 8 bytes each, and the latter
_MAX_COMPARED, _MAX_HIDDEN = 4_000_000, 10_000


class _Finding(NamedTuple):
    """First row of a kind, the column, what stands there, and how many more rows have the same."""

    row: SourceRow
    name: str
    shown: str
    more: int


class RowLint:
    """Findings in the rows that produce tasks. `is_used` says of a column whether anything is made of it."""

    def __init__(self, columns: Sequence[str], is_used: Callable[[str], bool], provenance: Provenance) -> None:
        self._columns, self._is_used, self._provenance = columns, is_used, provenance
        self._used: list[str] | None = None
        self._findings: dict[str, _Finding] = {}
        #: hashes of the values of rows without hidden characters
        self._hashes = array("q")
        #: by the hash of the values without them: rows with hidden characters, and the hash of what they hold
        self._hidden: dict[int, tuple[SourceRow, int]] = {}
        self._hidden_again: list[SourceRow] = []

    def count_row(self, row: SourceRow) -> None:
        """Count what is strange in a row, after its first task was made."""
        if self._used is None:
            self._used = [name for name in self._columns if self._is_used(name)]
        values, names = row.values, self._used
        texts = [text for name in names if type(text := values.get(name)) is str]
        if len(texts) < len(names):
            self._report_errors(row)
        if not texts:
            return
        joined = "\n".join(texts)
        if values.get(names[0]) == names[0] and all(value == name for name, value in values.items() if value):
            self._add("header", row, names[0], names[0])
        if joined.isascii():
            self._compare(hash(joined))
        else:
            self._count_unusual(row, joined)
        if '"' in joined and row.file.lower().endswith(_QUOTES_ARE_TEXT):
            self._count_quotes(row, frozenset(('""',)), "straight")

    def _report_errors(self, row: SourceRow) -> None:
        for name in self._used or ():
            if type(value := row.values.get(name)) is ErrorText:
                message = f"`{value}` is an error of a formula, and is no value"
                self._provenance.report_row(row, name, message, "mend the formula, or empty the cell")

    def _count_unusual(self, row: SourceRow, joined: str) -> None:
        self._count_quotes(row, _QUOTES, "typographic")
        if not _HIDDEN.search(joined):
            self._compare(hash(canonical_text(joined)))
            return
        for name in self._used or ():
            text = row.values.get(name)
            if isinstance(text, str) and (found := re.search(f"[{_INVISIBLE}]", text.strip(_INVISIBLE))):
                self._add("invisible", row, name, f"U+{ord(found[0]):04X}")
        without = hash(canonical_text(joined.translate(_PLAIN)))
        if without in self._hidden:
            if self._hidden[without][1] != hash(joined):
                self._hidden_again.append(row)
                del self._hidden_again[_MAX_HIDDEN:]
        elif len(self._hidden) < _MAX_HIDDEN:
            self._hidden[without] = row, hash(joined)

    def _count_quotes(self, row: SourceRow, pairs: frozenset[str], kind: str) -> None:
        for name in self._used or ():
            text = row.values.get(name)
            if isinstance(text, str) and len(text) > 2 and text[0] + text[-1] in pairs:  # noqa: PLR2004 - two quotes
                self._add(kind, row, name, f"{text[0]}…{text[-1]}")

    def _compare(self, digest: int) -> None:
        if len(self._hashes) < _MAX_COMPARED:
            self._hashes.append(digest)

    def _add(self, kind: str, row: SourceRow, name: str, shown: str) -> None:
        found = self._findings.get(kind)
        self._findings[kind] = _Finding(row, name, shown, 0) if found is None else found._replace(more=found.more + 1)

    def report(self) -> None:
        """Add a warning for each kind, at its first row."""
        for kind, (row, name, shown, more) in self._findings.items():
            also = f" (and {more:,} more)" if more else ""
            match kind:
                case "header":
                    message = f"this row repeats the header{also}, and is bought like any other"
                    if self._provenance.has_header_errors:
                        continue
                    hint = REPEATED_HEADER_HINT
                case "invisible":
                    message = f"holds {shown}, which nobody sees{also}, and it is sent"
                    hint = "delete it, for example by writing the value anew"
                case "straight":
                    message = f"the quotes in `{shown}` are text here{also}, and are sent"
                    hint = "take them away, or save the table as .csv, where they stand around a value"
                case _:
                    message = f"stands in quotes, `{shown}`{also}, which are sent with it"
                    hint = 'take them away if they are not meant; around a value of CSV stand straight ones, "…"'
            self._provenance.report_row(row, name, message, hint, warn=True)
        self._report_hidden()

    def _report_hidden(self) -> None:
        alike = list(self._hidden_again)
        if self._hidden:
            alike += [self._hidden[digest][0] for digest in self._hidden.keys() & set(self._hashes)]
        if not alike:
            return
        first = min(alike, key=lambda row: (row.line, row.column))
        also = f" (and so do {len(alike) - 1:,} more)" if len(alike) > 1 else ""
        found = next(
            (name, mark[0])
            for name in self._used or ()
            if isinstance(text := first.values.get(name), str) and (mark := _HIDDEN.search(text))
        )
        message = f"differs from another row in U+{ord(found[1]):04X} alone, which nobody sees{also}: both are bought"
        hint = "write a usual blank in its place, or take one of the two out"
        self._provenance.report_row(first, found[0], message, hint, warn=True)
