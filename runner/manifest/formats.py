"""Read each format of data files into rows, with the line at which each row begins.

- `csv`: RFC 4180. A value in quotes may hold commas, quotes and line breaks.
- `tsv`: a line is a row, a tab ends a value. Quotes are text, as in the media type text/tab-separated-values.
- `jsonl`, `ndjson`: an object a line. `json`: a list of objects. `yaml`, `yml`: a list of mappings.
- `txt`: a line is the variable `prompt`. Blank lines are skipped, `#` is text.
"""

from __future__ import annotations

import csv
import json
import re
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import orjson

from runner.manifest import reader
from runner.manifest.teach import described
from runner.manifest.values import Mapping, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runner.manifest.report import Report

#: largest length of a line, in bytes
MAX_LINE = 4 << 20
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BLANK = re.compile(r"[ \t\r\n]*")
#: names of the characters that tables use between columns, to recognise a file with another one
_MARKS = {"\t": "tabs", ";": "semicolons", ",": "commas", "|": "bars", "，": "full-width commas",
          "；": "full-width semicolons", "、": "enumeration commas"}  # fmt: skip
_SUFFIXES = {"\t": ".tsv", ",": ".csv"}
_SHOWN = 60
_OBJECTS = 'write [{"name": "value"}, …]'


class Row(NamedTuple):
    """Variables of one row, and the position at which the row begins."""

    values: dict[str, Any]
    file: str
    line: int
    column: int


class BadDataError(Exception):
    """The rest of a file cannot be read, from `line` on."""

    def __init__(self, line: int, message: str, hint: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message
        self.hint = hint


class BadTextError(BadDataError):
    """The file is not UTF-8."""


def _lines(file: IO[bytes]) -> Iterator[str]:
    """Yield the decoded lines with their line ends, without a byte order mark."""
    number, raw = 1, file.readline(MAX_LINE)
    if raw.startswith(_UTF16):
        raise BadTextError(1, "looks like UTF-16", "save the file with the encoding UTF-8")
    raw = raw.removeprefix(_BOM)
    while raw:
        if len(raw) >= MAX_LINE:
            raise BadDataError(number, f"a line of more than {MAX_LINE >> 20} MiB", "is this the right file?")
        yield _text(raw, number)
        number, raw = number + 1, file.readline(MAX_LINE)


def _text(raw: bytes, number: int) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        number += raw.count(b"\n", 0, error.start)
        raise BadTextError(number, "not UTF-8", "save the file with the encoding UTF-8") from None


def _csv(file: IO[bytes], label: str, diagnostics: Report) -> Iterator[Row]:
    return _table(csv.reader(_lines(file), strict=True), ",", label, diagnostics)


def _tsv(file: IO[bytes], label: str, diagnostics: Report) -> Iterator[Row]:
    return _table(csv.reader(_lines(file), delimiter="\t", quoting=csv.QUOTE_NONE), "\t", label, diagnostics)


def _table(records: Any, delimiter: str, label: str, diagnostics: Report) -> Iterator[Row]:
    _, header = _record(records)
    names, width = _header(header or [], delimiter), len(header or [])
    empty = first_empty = 0
    while True:
        line, fields = _record(records)
        if fields is None:
            break
        if not any(fields):
            empty, first_empty = empty + bool(fields), first_empty or (line if fields else 0)
        elif len(fields) == width and not any(fields[len(names) :]):
            yield Row(dict(zip(names, fields, strict=False)), label, line, 1)
        elif len(fields) == width:
            number = next(at for at, value in enumerate(fields, 1) if value and at > len(names))
            diagnostics.add((line, 1), "", f"there is a value in column {number}, which has no name",
                       "name the column in the first line, or empty it", file=label)  # fmt: skip
        else:
            count = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
            diagnostics.add((line, 1), "", f"{count} where the header has {width}",
                       "a value with a comma, a quote or a line break needs quotes in CSV", file=label)  # fmt: skip
    if empty:
        more = f", and so are {empty - 1:,} more" if empty > 1 else ""
        diagnostics.add((first_empty, 1), "", f"every cell of this row is empty, and it is passed over{more}",
                   "take out what is not meant as a row", file=label, warn=True)  # fmt: skip


def _record(records: Any) -> tuple[int, list[str] | None]:
    """Return the line at which the next record begins, and the record, None at the end."""
    line = records.line_num + 1
    try:
        return line, next(records, None)
    except csv.Error as error:
        raise BadDataError(line, f"not readable from here on: {error}", "is a quote opened and never closed?") from None


def _header(written: list[str], delimiter: str) -> list[str]:
    names = [name.strip() for name in written]
    other = next((each for each in _MARKS if each in names[0] and each != delimiter), None) if len(names) == 1 else None
    if other:
        rename = f"call the file {_SUFFIXES[other]}, or " if other in _SUFFIXES else ""
        message = f"`{names[0][:_SHOWN]}` is one column: {_MARKS[other]} stand where {_MARKS[delimiter]} should"
        raise BadDataError(1, message, f"{rename}save it with {_MARKS[delimiter]} between the columns")
    if not any(names):
        raise BadDataError(1, "no header", "name the columns in the first line")
    while not names[-1]:  # spreadsheets save empty columns to the right of a table
        names.pop()
    if "" in names:
        raise BadDataError(1, f"column {names.index('') + 1} has no name", "name every column in the first line")
    for number, name in enumerate(names):
        if name in names[:number]:
            raise BadDataError(1, f"two columns are called `{name}`", "rename one of them")
    return names


def _jsonl(file: IO[bytes], label: str, diagnostics: Report) -> Iterator[Row]:
    for line, text in enumerate(_lines(file), 1):
        if not text.isspace():
            yield from _object(text, label, line, diagnostics)


def _object(text: str, label: str, line: int, diagnostics: Report) -> Iterator[Row]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        diagnostics.add((line, error.colno), "", f"not JSON: {error.msg}", "write one object a line", file=label)
        return
    if isinstance(value, dict):
        yield Row(value, label, line, 1)
    else:
        diagnostics.add(
            (line, 1), "", f"expected an object, found {described(value)}", 'write {"name": "value"}', file=label
        )


def _whole(file: IO[bytes]) -> bytes:
    text = file.read(reader.MAX_BYTES + 1)
    if len(text) > reader.MAX_BYTES:
        raise BadDataError(0, "larger than 64 MiB", "convert it to .jsonl, which is read line by line")
    return text


def _json(file: IO[bytes], label: str, diagnostics: Report) -> Iterator[Row]:
    text = _text(_whole(file).removeprefix(_BOM), 1)
    line, counted = 1, 0
    for value, at in _elements(text):
        line, counted = line + text.count("\n", counted, at), at
        if isinstance(value, dict):
            if reason := _lost(value):
                diagnostics.add((line, 1), "", f"cannot be kept: {reason}", "write long numbers in quotes", file=label)
            else:
                yield Row(value, label, line, 1)
        else:
            diagnostics.add((line, 1), "", f"expected an object, found {described(value)}", _OBJECTS, file=label)


def _lost(value: dict[str, Any]) -> str:
    """Return the reason why orjson, and so the store, cannot write a value, empty if it can.

    Python's own parser accepts lone surrogates and numbers of any length.
    """
    try:
        orjson.dumps(value)
    except TypeError as error:
        return str(error)
    return ""


def _elements(text: str) -> Iterator[tuple[Any, int]]:
    """Yield the values of a JSON list and the offset at which each begins."""
    decode = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=_pairs).raw_decode
    at = _after(text, 0, "[")
    while text[at : at + 1] != "]":
        try:
            value, end = decode(text, at)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", None) or (
                str(error) if isinstance(error, ValueError) else "nested too deeply"
            )
            raise BadDataError(_line(text, getattr(error, "pos", at)), f"not JSON: {reason}", _OBJECTS) from None
        yield value, at
        at = _blank(text, end)
        if text[at : at + 1] != "]":
            at = _after(text, at, ",")
    if text[_blank(text, at + 1) :]:
        raise BadDataError(_line(text, at), "something follows the list", _OBJECTS)


def _after(text: str, at: int, token: str) -> int:
    at = _blank(text, at)
    if text[at : at + 1] != token:
        raise BadDataError(_line(text, at), f"not a JSON list: expected `{token}`", _OBJECTS)
    return _blank(text, at + 1)


def _blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


def _yaml(file: IO[bytes], label: str, diagnostics: Report) -> Iterator[Row]:
    values, errors = reader.scan(_whole(file), label)
    diagnostics.extend(errors)
    if values is None or errors:
        return
    if not isinstance(values, list):
        raise BadDataError(1, f"expected a list of rows, found {described(values)}", "write `- name: value` lines")
    for value, at in zip(values, getattr(values, "places", ()), strict=False):
        line, column = unpack(at)
        if isinstance(value, Mapping):
            yield Row(value, label, line, column)
        else:
            diagnostics.add(
                (line, column), "", f"expected a mapping, found {described(value)}", "write `name: value`", file=label
            )


def _txt(file: IO[bytes], label: str, _diagnostics: Report) -> Iterator[Row]:
    for line, text in enumerate(_lines(file), 1):
        if prompt := text.strip():
            yield Row({"prompt": prompt}, label, line, 1)


#: readers by the suffix of the file name
READERS: dict[str, Callable[[IO[bytes], str, Report], Iterator[Row]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".yaml": _yaml,
    ".yml": _yaml,
    ".txt": _txt,
}
