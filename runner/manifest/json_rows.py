"""Read rows from JSON: an object a line, a list of objects, or an object of objects by their keys."""

from __future__ import annotations

import json
import re
from typing import IO, TYPE_CHECKING, Any

import orjson

from runner.manifest.decoding import BadDataError, Lines, decode_whole, read_whole
from runner.manifest.diagnostics import describe_value
from runner.manifest.field_positions import JsonSyntax
from runner.manifest.model import SourceRow
from runner.manifest.yaml_reader import INTEGERS
from runner.text import number_as_written, plain_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.manifest.diagnostics import Diagnostics

#: name of the column that has the keys of an object of objects
KEY = "key"
_NESTED = frozenset((dict, list))
#: numbers of JSON that Python may write in another way: `1.10`, `1E3`, and those of many digits
_UNUSUAL_FLOAT = re.compile(r"\.[0-9]+0(?![0-9])|[0-9][eE][-+0-9]|[0-9.]{17}")
_WHITESPACE = re.compile(r"[ \t\r\n]*")
#: syntax of a line that is an object
_LINE = JsonSyntax()
_OBJECTS_HINT = 'write [{"name": "value"}, …]'


def read_jsonl(file: IO[bytes], label: str, diagnostics: Diagnostics) -> Iterator[SourceRow]:
    """Yield a row for each line that is a JSON object."""
    lines = Lines(file)
    for line, text in enumerate(lines, 1):
        lines.size = 0
        if text.isspace():
            continue
        try:
            value = orjson.loads(text)
            if isinstance(value, dict) and _has_float(value) and _UNUSUAL_FLOAT.search(text):
                value = json.loads(text, parse_float=_float_as_written, parse_int=_exact_integer)
        except orjson.JSONDecodeError as error:
            diagnostics.add((line, error.colno), "", f"not JSON: {error.msg}", "write one object a line", file=label)
            continue
        except RecursionError:
            diagnostics.add((line, 1), "", "not JSON: nested too deeply", "write one object a line", file=label)
            continue
        if isinstance(value, dict):
            yield SourceRow(value, label, line, 1, (text,), _LINE)
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


def read_json(file: IO[bytes], label: str, diagnostics: Diagnostics) -> Iterator[SourceRow]:
    """Yield a row for each object of a list, or of an object, whose keys become the column `key`."""
    text = decode_whole(read_whole(file))
    line, counted, texts = 1, 0, (text,)
    for key, value, at in _elements(text):
        line, counted = line + text.count("\n", counted, at), at
        if not isinstance(value, dict):
            message = f"expected an object, found {describe_value(value)}"
            diagnostics.add((line, 1), "", message, _OBJECTS_HINT, file=label)
        elif reason := _unstorable_reason(value):
            diagnostics.add((line, 1), "", f"cannot be kept: {reason}", "write long numbers in quotes", file=label)
        elif key is not None and KEY in value:
            message = f"has a `{KEY}` of its own, and its key `{key[:40]}` would be called so as well"
            diagnostics.add((line, 1), KEY, message, "rename it, or write the objects as a list", file=label)
        else:
            values = value if key is None else {KEY: key, **value}
            yield SourceRow(values, label, line, 1, texts, JsonSyntax(at))


def _unstorable_reason(value: dict[str, Any]) -> str:
    """Return the reason why orjson, and so the store, cannot write a value, empty if it can.

    Python's own parser accepts lone surrogates and numbers of any length.
    """
    try:
        orjson.dumps(plain_numbers(value))
    except (TypeError, RecursionError) as error:
        return str(error)
    return ""


def _elements(text: str) -> Iterator[tuple[str | None, Any, int]]:
    """Yield key, value and offset of each member of a JSON list, whose keys are None, or of an object of objects."""
    decode = json.JSONDecoder(
        parse_constant=_reject_constant, parse_float=_float_as_written, object_pairs_hook=_unique_pairs
    ).raw_decode
    at = _skip_whitespace(text, 0)
    is_object = text[at : at + 1] == "{"
    at, closing = _skip_token(text, at, "{" if is_object else "["), "}" if is_object else "]"
    keys: set[str] = set()
    while text[at : at + 1] != closing:
        key, begin = None, at
        if is_object:
            key, at = _decode(decode, text, at)
            at = _skip_token(text, at, ":")
            if key in keys:
                raise BadDataError(
                    _line_number(text, begin), f"the key `{key[:40]}` stands twice", "rename one of them"
                )
            keys.add(key)
        value, end = _decode(decode, text, at)
        if is_object and not isinstance(value, dict):
            message = f"not a JSON list: expected `[`, or an object of objects, found {describe_value(value)} in one"
            raise BadDataError(_line_number(text, begin), message, _member_hint(key, value))
        yield key, value, begin
        at = _skip_whitespace(text, end)
        if text[at : at + 1] != closing:
            at = _skip_token(text, at, ",")
    following = _skip_whitespace(text, at + 1)
    if text[following:]:
        hint = "call the file .jsonl" if is_object and text[following] == "{" else _OBJECTS_HINT
        raise BadDataError(_line_number(text, at), f"something follows the {'object' if is_object else 'list'}", hint)


def _member_hint(key: Any, value: Any) -> str:
    """Return the hint for an object that holds something else than objects."""
    if isinstance(value, list):
        return f"keep only the list under `{str(key)[:40]}`, if it holds the rows"
    return f"{_OBJECTS_HINT}, or call the file .jsonl if a line is an object"


def _decode(decode: Any, text: str, at: int) -> tuple[Any, int]:
    try:
        value: tuple[Any, int] = decode(text, at)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or (str(error) if isinstance(error, ValueError) else "nested too deeply")
        line = _line_number(text, getattr(error, "pos", at))
        raise BadDataError(line, f"not JSON: {reason}", _OBJECTS_HINT) from None
    return value


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
