"""Read data files into rows, one by one, with the line at which each row begins.

Values of a data file are never templates. A file that is not UTF-8 is rejected with its likely encoding and the command
that converts it. The formats:

- `csv`: RFC 4180. A value in quotes may hold commas, quotes and line breaks.
- `tsv`: a line is a row, a tab ends a value. Quotes are text, as in the media type text/tab-separated-values.
- `jsonl`, `ndjson`: an object a line. `json`: a list of objects, or an object of objects, whose keys become the column
  `key`. `yaml`, `yml`: a list of mappings. Values of these may be nested.
- `xlsx`, `ods`: a sheet of a workbook, whose values are text as in CSV; it needs the extra `tables`.
- `txt`: a line is the variable `prompt`. Blank lines are skipped, `#` is text.
"""

from __future__ import annotations

import csv
import os
import re
import stat
from functools import partial
from itertools import chain
from typing import IO, TYPE_CHECKING, Any

from runner.files import NotRegularFileError, open_to_read
from runner.manifest import yaml_reader
from runner.manifest.content_checks import data_error
from runner.manifest.decoding import MAX_CELL, BadDataError, BadTextError, Lines, NulError, read_whole
from runner.manifest.diagnostics import describe_value
from runner.manifest.encoding_advice import encoding_advice, nul_hint
from runner.manifest.field_positions import TableSyntax
from runner.manifest.json_rows import read_json, read_jsonl
from runner.manifest.model import SourceRow
from runner.manifest.positions import YamlMapping, unpack_position

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runner.manifest.diagnostics import Diagnostics
    from runner.manifest.workbooks import SheetRecords, SheetSyntax

_EXCERPT_LENGTH = 60
#: opening quotes that a word processor puts in the place of straight ones
_WORD_PROCESSOR_QUOTES = frozenset("“„‟＂")
#: characters of the rows that are read ahead
_MAX_AHEAD = 64 << 20
#: first line by which spreadsheets name the delimiter of a table
_DELIMITER_LINE = re.compile(r'"?sep=(.)"?\r?\n?', re.IGNORECASE)
#: names of the delimiters that tables use, to recognise a file with another one
_DELIMITER_NAMES = {"\t": "tabs", ";": "semicolons", ",": "commas", "|": "bars", "，": "full-width commas",
          "；": "full-width semicolons", "、": "enumeration commas"}  # fmt: skip
_WORKBOOKS = frozenset((".xlsx", ".ods"))
_DELIMITER_SUFFIXES = {"\t": ".tsv", ",": ".csv"}
_CELL_MESSAGE = f"a cell of more than {MAX_CELL >> 20} MiB"
_CELL_HINT = "put what is in it into a file, and write the path of that into the cell"


def file_label(file: Path, manifest: Path) -> str:
    """Return the path of a data file as messages show it.

    A file in or below the manifest's directory is shown with the directory as the user wrote it, any other in full.
    """
    folder = os.path.dirname(manifest)  # noqa: PTH120 - a label, `./a` stays `./a`
    beside = os.path.relpath(file, manifest.absolute().parent)
    return str(file) if beside.startswith("..") else os.path.normpath(os.path.join(folder, beside))  # noqa: PTH118


def data_file_error(path: Path) -> tuple[str, str] | None:
    """Return message and hint if `path` cannot be a data file, else None."""
    if path.suffix.lower() not in SUFFIXES:
        return f"a data file ends in {', '.join(SUFFIXES)}", "convert it, or rename it"
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return f"there is no such file: {path}", "paths are relative to the manifest"
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}", "check the path and its permissions"
    return None if regular else ("not a regular file", "give the path of a data file")


def read_rows(path: Path, label: str, diagnostics: Diagnostics, *, sheet: str = "") -> Iterator[SourceRow]:
    """Yield the valid rows of `path` in order. Errors go to `diagnostics`, with `file_label` as the file's name.

    `sheet` names one of a workbook; without it the first visible one with cells is read.
    """
    read = partial(_read_workbook, sheet=sheet) if is_workbook(path) else READERS[path.suffix.lower()]
    empty = True
    try:
        with _open_regular(path) as file:
            for row in read(file, label, diagnostics):
                empty = False
                if _has_fit_values(row, diagnostics):
                    yield row
    except BadTextError as error:
        diagnostics.add((error.line, 1), "", *encoding_advice(path, label, error), file=label)
    except NulError as error:
        diagnostics.add((error.line, 1), "", error.message, nul_hint(label), file=label)
    except BadDataError as error:
        diagnostics.add((error.line, error.column), "", error.message, error.hint, file=label)
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        diagnostics.add((0, 0), "", message, "check the file and its permissions", file=label)
    else:
        if empty and not diagnostics:
            diagnostics.add((1, 1), "", "no rows", "add one, or take `items` out of the manifest", file=label)


def is_workbook(path: Path) -> bool:
    """Return whether a data file has sheets."""
    return path.suffix.lower() in _WORKBOOKS


def look_ahead(rows: Iterator[SourceRow], most: int) -> list[SourceRow]:
    """Return the first rows, at most `most`, and fewer if they are long."""
    ahead, length = [], 0
    for row in rows:
        ahead.append(row)
        length += sum(len(value) for value in row.values.values() if type(value) is str)
        if len(ahead) == most or length > _MAX_AHEAD:
            break
    return ahead


def _open_regular(path: Path) -> IO[bytes]:
    try:
        return open_to_read(path, follow_links=True)
    except NotRegularFileError:
        raise BadDataError(0, "not a regular file", "give the path of a data file") from None


def _has_fit_values(row: SourceRow, diagnostics: Diagnostics) -> bool:
    is_fit = True
    for name, value in row.values.items():
        if type(value) is str:
            if len(value) > MAX_CELL:
                diagnostics.add(row.locate(name), name, _CELL_MESSAGE, _CELL_HINT, file=row.file)
                is_fit = False
        elif message := data_error(value):
            hint = "write long numbers in quotes" if "number" in message else _CELL_HINT
            diagnostics.add(row.locate(name), name, message, hint, file=row.file)
            is_fit = False
    return is_fit


def _read_csv(file: IO[bytes], label: str, diagnostics: Diagnostics) -> Iterator[SourceRow]:
    return _read_table(_Records(Lines(file, split_returns=True), ",", strict=True), label, diagnostics)


def _read_tsv(file: IO[bytes], label: str, diagnostics: Diagnostics) -> Iterator[SourceRow]:
    return _read_table(_Records(Lines(file, split_returns=True), "\t", quoting=csv.QUOTE_NONE), label, diagnostics)


class _Records:
    """Records of a table. The first line may name another delimiter (`sep=;`)."""

    def __init__(self, lines: Lines, delimiter: str, **form: Any) -> None:
        # the limit is the module's; it is raised and never lowered, for other readers in this process
        csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))
        texts = iter(lines)
        first = next(texts, "")
        named = _DELIMITER_LINE.fullmatch(first)
        self.delimiter = named[1] if named else delimiter
        self.syntax = TableSyntax(self.delimiter, is_quoted=form.get("quoting") != csv.QUOTE_NONE)
        #: lines of the record that was read last
        self.texts: list[str] = []
        self._lines, self._skipped = lines, int(named is not None)
        kept = self._keep(texts if named else chain([first], texts))
        self._reader = csv.reader(kept, delimiter=self.delimiter, **form)

    def next(self) -> tuple[int, list[str] | None]:
        """Return the line at which the next record begins, and the record, None at the end."""
        line = self._reader.line_num + self._skipped + 1
        self._lines.size = 0
        self.texts = []
        try:
            return line, next(self._reader, None)
        except csv.Error as error:
            last = self._reader.line_num + self._skipped
            if "field limit" in str(error):
                quoted = f", which goes on to line {last:,}: is a quote opened and never closed?" if last > line else ""
                raise BadDataError(line, f"{_CELL_MESSAGE}{quoted}", _CELL_HINT) from None
            message = f"not readable from here on: {error}"
            raise BadDataError(line, message, "is a quote opened and never closed?") from None

    def _keep(self, texts: Iterator[str]) -> Iterator[str]:
        """Yield the lines, and keep those of one record."""
        for text in texts:
            self.texts.append(text)
            yield text


def _read_workbook(file: IO[bytes], label: str, diagnostics: Diagnostics, sheet: str = "") -> Iterator[SourceRow]:
    from runner.manifest.workbooks import SheetRecords  # noqa: PLC0415 - only those who use workbooks pay for it

    records = SheetRecords(file, label, sheet, diagnostics)
    try:
        yield from _read_table(records, records.label, diagnostics)
    except BadDataError as error:
        diagnostics.add((error.line, error.column), "", error.message, error.hint, file=records.label)


def _read_table(records: _Records | SheetRecords, label: str, diagnostics: Diagnostics) -> Iterator[SourceRow]:
    at, header = records.next()
    while header is not None and not records.delimiter and not any(header):  # a sheet may begin further down
        at, header = records.next()
    syntax = records.syntax
    syntax.header = at, records.texts
    syntax.names = names = _parse_header(header or [], records.delimiter, at, syntax)
    width = len(header or [])
    empty = first_empty = 0
    while True:
        line, fields = records.next()
        if fields is None:
            break
        if not any(fields):
            empty, first_empty = empty + bool(fields), first_empty or (line if fields else 0)
        elif len(fields) == width and not any(fields[len(names) :]):
            yield SourceRow(dict(zip(names, fields, strict=False)), label, line, 1, records.texts, syntax)
        elif len(fields) == width:
            number = next(at for at, value in enumerate(fields, 1) if value and at > len(names))
            below, column = syntax.locate_field(records.texts, number - 1) or (0, 1)
            diagnostics.add((line + below, column), "", f"there is a value in column {number}, which has no name",
                       "name the column in the first line, or empty it", file=label)  # fmt: skip
        else:
            count = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
            hint = "a value with a comma, a quote or a line break needs quotes in CSV"
            if {field.strip().casefold() for field in fields} <= {name.casefold() for name in (*names, "")}:
                count = f"the header of another table, {count}"
                hint = "join tables by the names of their columns, or give each a manifest of its own"
            elif any(field[:1] in _WORD_PROCESSOR_QUOTES for field in fields if field):
                hint = 'quotes of a word processor (“ ”) hold nothing together in CSV: write straight ones, "…"'
            diagnostics.add((line, 1), "", f"{count} where the header has {width}", hint, file=label)
    if empty:
        more = f", and so are {empty - 1:,} more" if empty > 1 else ""
        diagnostics.add((first_empty, 1), "", f"every cell of this row is empty, and it is passed over{more}",
                   "take out what is not meant as a row", file=label, warn=True)  # fmt: skip


def _parse_header(written: list[str], delimiter: str, line: int, syntax: TableSyntax | SheetSyntax) -> list[str]:
    names = [name.strip() for name in written]
    others = (
        (each for each in _DELIMITER_NAMES if each in names[0] and each != delimiter)
        if len(names) == 1 and delimiter
        else ()
    )
    if other := next(iter(others), None):
        rename = f"call the file {_DELIMITER_SUFFIXES[other]}, or " if other in _DELIMITER_SUFFIXES else ""
        found, expected = _DELIMITER_NAMES[other], _DELIMITER_NAMES.get(delimiter, repr(delimiter))
        message = f"`{names[0][:_EXCERPT_LENGTH]}` is one column: {found} stand where {expected} should"
        raise BadDataError(line, message, f"{rename}save it with {expected} between the columns")
    if not any(names):
        raise BadDataError(line, "no header", "name the columns in the first line")
    while not names[-1]:  # spreadsheets save empty columns to the right of a table
        names.pop()
    for number, name in enumerate(names):
        if not name or name in names[:number]:
            below, column = syntax.locate_field(syntax.header[1], number) or (0, 1)
            message = f"two columns are called `{name}`" if name else f"column {number + 1} has no name"
            hint = "rename one of them" if name else "name every column in the first line"
            raise BadDataError(line + below, message, hint, column=column)
    return names


def _read_yaml(file: IO[bytes], label: str, diagnostics: Diagnostics) -> Iterator[SourceRow]:
    values, errors = yaml_reader.scan(read_whole(file), label)
    diagnostics.extend(errors)
    if values is None or errors:
        return
    if not isinstance(values, list):
        raise BadDataError(1, f"expected a list of rows, found {describe_value(values)}", "write `- name: value` lines")
    for value, at in zip(values, getattr(values, "positions", ()), strict=False):
        line, column = unpack_position(at)
        if isinstance(value, YamlMapping):
            yield SourceRow(value, label, line, column)
        else:
            message = f"expected a mapping, found {describe_value(value)}"
            diagnostics.add((line, column), "", message, "write `name: value`", file=label)


def _read_txt(file: IO[bytes], label: str, _diagnostics: Diagnostics) -> Iterator[SourceRow]:
    lines = Lines(file)
    for line, text in enumerate(lines, 1):
        lines.size = 0
        if prompt := text.strip():
            yield SourceRow({"prompt": prompt}, label, line, 1)


#: reader of each suffix
READERS: dict[str, Callable[[IO[bytes], str, Diagnostics], Iterator[SourceRow]]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
    ".txt": _read_txt,
    ".xlsx": _read_workbook,
    ".ods": _read_workbook,
}
#: suffixes that the name of a data file may have
SUFFIXES = tuple(READERS)
