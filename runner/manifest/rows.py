"""Read data files into rows, one by one, with the line at which each row begins.

Values of a data file are never templates. A file that is not UTF-8 is rejected with its likely encoding and the command
that converts it. The formats:

- `csv`: RFC 4180. A value in quotes may hold commas, quotes and line breaks.
- `tsv`: a line is a row, a tab ends a value. Quotes are text, as in the media type text/tab-separated-values.
- `jsonl`, `ndjson`: an object a line. `json`: a list of objects. `yaml`, `yml`: a list of mappings.
- `txt`: a line is the variable `prompt`. Blank lines are skipped, `#` is text.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import stat
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import orjson

from runner.files import NotRegularFileError, open_to_read
from runner.manifest import yaml_reader
from runner.manifest.content_checks import value_error
from runner.manifest.diagnostics import describe_value
from runner.manifest.positions import YamlMapping, unpack_position
from runner.manifest.yaml_reader import INTEGERS
from runner.text import number_as_written, plain_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runner.manifest.diagnostics import Diagnostics

#: largest length of a line, in bytes
MAX_LINE = 4 << 20
#: bytes that are read to recognise an encoding
_SAMPLE_SIZE = 64 * 1024
_EXCERPT_LENGTH = 60
_BOM = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_WHITESPACE = re.compile(r"[ \t\r\n]*")
_HAN = re.compile(r"[\u4e00-\u9fff]")
#: names of the delimiters that tables use, to recognise a file with another one
_DELIMITER_NAMES = {"\t": "tabs", ";": "semicolons", ",": "commas", "|": "bars", "，": "full-width commas",
          "；": "full-width semicolons", "、": "enumeration commas"}  # fmt: skip
_DELIMITER_SUFFIXES = {"\t": ".tsv", ",": ".csv"}
_NESTED = frozenset((dict, list))
#: numbers of JSON that Python may write in another way: `1.10`, `1E3`, and those of many digits
_UNUSUAL_FLOAT = re.compile(r"\.[0-9]+0(?![0-9])|[0-9][eE][-+0-9]|[0-9.]{17}")
_OBJECTS_HINT = 'write [{"name": "value"}, …]'


class SourceRow(NamedTuple):
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


def read_rows(path: Path, label: str, diagnostics: Diagnostics) -> Iterator[SourceRow]:
    """Yield the valid rows of `path` in order. Errors go to `diagnostics`, with `file_label` as the file's name."""
    read = READERS[path.suffix.lower()]
    empty = True
    try:
        with _open_regular(path) as file:
            for row in read(file, label, diagnostics):
                empty = False
                if _has_plain_values(row, diagnostics):
                    yield row
    except BadTextError as error:
        name = guess_encoding(path)
        message = f"{error.message}; it reads as {name}, as spreadsheets save it" if name else error.message
        diagnostics.add((error.line, 1), "", message, conversion_hint(label, name) if name else error.hint, file=label)
    except BadDataError as error:
        diagnostics.add((error.line, 1), "", error.message, error.hint, file=label)
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        diagnostics.add((0, 0), "", message, "check the file and its permissions", file=label)
    else:
        if empty and not diagnostics:
            diagnostics.add((1, 1), "", "no rows", "add one, or take `items` out of the manifest", file=label)


def _open_regular(path: Path) -> IO[bytes]:
    try:
        return open_to_read(path, follow_links=True)
    except NotRegularFileError:
        raise BadDataError(0, "not a regular file", "give the path of a data file") from None


def _has_plain_values(row: SourceRow, diagnostics: Diagnostics) -> bool:
    is_plain = True
    for name, value in row.values.items():
        if type(value) is not str and (message := value_error(value)):
            diagnostics.add((row.line, row.column), name, message, "a row holds plain values", file=row.file)
            is_plain = False
    return is_plain


def _read_csv(file: IO[bytes], label: str, diagnostics: Diagnostics) -> Iterator[SourceRow]:
    return _read_table(csv.reader(_lines(file), strict=True), ",", label, diagnostics)


def _read_tsv(file: IO[bytes], label: str, diagnostics: Diagnostics) -> Iterator[SourceRow]:
    return _read_table(csv.reader(_lines(file), delimiter="\t", quoting=csv.QUOTE_NONE), "\t", label, diagnostics)


def _read_table(records: Any, delimiter: str, label: str, diagnostics: Diagnostics) -> Iterator[SourceRow]:
    _, header = _next_record(records)
    names, width = _parse_header(header or [], delimiter), len(header or [])
    empty = first_empty = 0
    while True:
        line, fields = _next_record(records)
        if fields is None:
            break
        if not any(fields):
            empty, first_empty = empty + bool(fields), first_empty or (line if fields else 0)
        elif len(fields) == width and not any(fields[len(names) :]):
            yield SourceRow(dict(zip(names, fields, strict=False)), label, line, 1)
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


def _next_record(records: Any) -> tuple[int, list[str] | None]:
    """Return the line at which the next record begins, and the record, None at the end."""
    line = records.line_num + 1
    try:
        return line, next(records, None)
    except csv.Error as error:
        raise BadDataError(line, f"not readable from here on: {error}", "is a quote opened and never closed?") from None


def _parse_header(written: list[str], delimiter: str) -> list[str]:
    names = [name.strip() for name in written]
    others = (each for each in _DELIMITER_NAMES if each in names[0] and each != delimiter) if len(names) == 1 else ()
    if other := next(iter(others), None):
        rename = f"call the file {_DELIMITER_SUFFIXES[other]}, or " if other in _DELIMITER_SUFFIXES else ""
        found, expected = _DELIMITER_NAMES[other], _DELIMITER_NAMES[delimiter]
        message = f"`{names[0][:_EXCERPT_LENGTH]}` is one column: {found} stand where {expected} should"
        raise BadDataError(1, message, f"{rename}save it with {expected} between the columns")
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


def _read_jsonl(file: IO[bytes], label: str, diagnostics: Diagnostics) -> Iterator[SourceRow]:
    for line, text in enumerate(_lines(file), 1):
        if text.isspace():
            continue
        try:
            value = orjson.loads(text)
            if isinstance(value, dict) and _has_float(value) and _UNUSUAL_FLOAT.search(text):
                value = json.loads(text, parse_float=_float_as_written, parse_int=_exact_integer)
        except orjson.JSONDecodeError as error:
            diagnostics.add((line, error.colno), "", f"not JSON: {error.msg}", "write one object a line", file=label)
            continue
        if isinstance(value, dict):
            yield SourceRow(value, label, line, 1)
        else:
            message = f"expected an object, found {describe_value(value)}"
            diagnostics.add((line, 1), "", message, 'write {"name": "value"}', file=label)


def _has_float(value: Any) -> bool:
    """Return whether there is a number with a decimal point or an exponent at any depth of a row."""
    for each in value.values() if type(value) is dict else value:
        kind = type(each)
        if kind is float or (kind in _NESTED and _has_float(each)):
            return True
    return False


def _float_as_written(written: str) -> float:
    """Return a number of JSON: `1.10` stays `1.10` where text is wanted."""
    return number_as_written(float(written), written)


def _exact_integer(written: str) -> float:
    """Return a whole number of JSON as orjson reads it: one beyond 64 bits has lost digits, and is reported later."""
    inexact = float(written)
    return inexact if abs(inexact) > INTEGERS.stop or int(written) not in INTEGERS else int(written)


def _read_json(file: IO[bytes], label: str, diagnostics: Diagnostics) -> Iterator[SourceRow]:
    text = _decode(_read_whole(file).removeprefix(_BOM), 1)
    line, counted = 1, 0
    for value, at in _list_elements(text):
        line, counted = line + text.count("\n", counted, at), at
        if isinstance(value, dict):
            if reason := _unstorable_reason(value):
                diagnostics.add((line, 1), "", f"cannot be kept: {reason}", "write long numbers in quotes", file=label)
            else:
                yield SourceRow(value, label, line, 1)
        else:
            message = f"expected an object, found {describe_value(value)}"
            diagnostics.add((line, 1), "", message, _OBJECTS_HINT, file=label)


def _unstorable_reason(value: dict[str, Any]) -> str:
    """Return the reason why orjson, and so the store, cannot write a value, empty if it can.

    Python's own parser accepts lone surrogates and numbers of any length.
    """
    try:
        orjson.dumps(plain_numbers(value))
    except TypeError as error:
        return str(error)
    return ""


def _list_elements(text: str) -> Iterator[tuple[Any, int]]:
    """Yield the values of a JSON list and the offset at which each begins."""
    decode = json.JSONDecoder(
        parse_constant=_reject_constant, parse_float=_float_as_written, object_pairs_hook=_unique_pairs
    ).raw_decode
    at = _skip_token(text, 0, "[")
    while text[at : at + 1] != "]":
        try:
            value, end = decode(text, at)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", None) or (
                str(error) if isinstance(error, ValueError) else "nested too deeply"
            )
            line = _line_number(text, getattr(error, "pos", at))
            raise BadDataError(line, f"not JSON: {reason}", _OBJECTS_HINT) from None
        yield value, at
        at = _skip_whitespace(text, end)
        if text[at : at + 1] != "]":
            at = _skip_token(text, at, ",")
    if text[_skip_whitespace(text, at + 1) :]:
        raise BadDataError(_line_number(text, at), "something follows the list", _OBJECTS_HINT)


def _skip_token(text: str, at: int, token: str) -> int:
    at = _skip_whitespace(text, at)
    if text[at : at + 1] != token:
        raise BadDataError(_line_number(text, at), f"not a JSON list: expected `{token}`", _OBJECTS_HINT)
    return _skip_whitespace(text, at + 1)


def _skip_whitespace(text: str, at: int) -> int:
    found = _WHITESPACE.match(text, at)
    return found.end() if found else at


def _line_number(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


def _read_yaml(file: IO[bytes], label: str, diagnostics: Diagnostics) -> Iterator[SourceRow]:
    values, errors = yaml_reader.scan(_read_whole(file), label)
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
    for line, text in enumerate(_lines(file), 1):
        if prompt := text.strip():
            yield SourceRow({"prompt": prompt}, label, line, 1)


def _read_whole(file: IO[bytes]) -> bytes:
    text = file.read(yaml_reader.MAX_BYTES + 1)
    if len(text) > yaml_reader.MAX_BYTES:
        raise BadDataError(0, "larger than 64 MiB", "convert it to .jsonl, which is read line by line")
    return text


def _lines(file: IO[bytes]) -> Iterator[str]:
    """Yield the decoded lines with their line ends, without a byte order mark."""
    number, raw = 1, file.readline(MAX_LINE)
    if raw.startswith(_UTF16_MARKS):
        raise BadTextError(1, "looks like UTF-16", "save the file with the encoding UTF-8")
    raw = raw.removeprefix(_BOM)
    while raw:
        if len(raw) >= MAX_LINE:
            raise BadDataError(number, f"a line of more than {MAX_LINE >> 20} MiB", "is this the right file?")
        yield _decode(raw, number)
        number, raw = number + 1, file.readline(MAX_LINE)


def _decode(raw: bytes, number: int) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        number += raw.count(b"\n", 0, error.start)
        raise BadTextError(number, "not UTF-8", "save the file with the encoding UTF-8") from None


#: reader of each suffix
READERS: dict[str, Callable[[IO[bytes], str, Diagnostics], Iterator[SourceRow]]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
    ".txt": _read_txt,
}
#: suffixes that the name of a data file may have
SUFFIXES = tuple(READERS)


def guess_encoding(path: Path) -> str:
    """Return the encoding that the beginning of a file can be decoded as.

    The name is empty for UTF-8, for an unknown encoding and for an unreadable file.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_SAMPLE_SIZE)
    except OSError:
        return ""
    if len(head) == _SAMPLE_SIZE:
        head = head.rpartition(b"\n")[0]
    if head.startswith(_UTF16_MARKS):
        return "UTF-16"
    try:
        head.decode()
    except UnicodeDecodeError:
        pass
    else:
        return ""
    try:
        return "GB18030" if _HAN.search(head.decode("gb18030")) else ""
    except UnicodeDecodeError:
        return ""


def conversion_hint(path: str, encoding: str) -> str:
    """Return the hint that names the command to convert a file to UTF-8."""
    stem, dot, suffix = path.rpartition(".")
    fresh = f"{stem}-utf8.{suffix}" if dot else f"{path}-utf8"
    return f"save it as “CSV UTF-8”, or: iconv -f {encoding} -t UTF-8 {shlex.quote(path)} > {shlex.quote(fresh)}"
