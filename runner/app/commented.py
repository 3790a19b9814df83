"""YAML lines with comments, with values that YAML 1.1 and 1.2 read alike."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

import orjson

from runner.report.text import harmless

if TYPE_CHECKING:
    from runner.providers.spec import Parameter

PICTURE = "https://example.com/first.png"
_WIDTH = 118
_COMMENT_AT = 44
#: least characters of room for a comment
_LEAST = 10
#: text that YAML 1.1 and 1.2 both read as text without quotes
_PLAIN = re.compile(r"[A-Za-z][\w.-]*(?:/[\w.-]+)*")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
_KINDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "list": "a list",
    "object": "a mapping",
    "image": "the URL or the file of an image",
}


def line(text: str, comment: str) -> str:
    """Return the text with as much of its comment as fits, aligned with other comments if possible."""
    written = f"{text}{' ' * max(2, _COMMENT_AT - _width(text))}# "
    room = _WIDTH - len(written)
    return f"{written}{harmless(comment, room)}" if room >= _LEAST else text


def _width(text: str) -> int:
    """Return the columns that a text takes in a terminal, two for each Chinese character."""
    return sum(1 + (east_asian_width(char) in {"W", "F"}) for char in text)


def facts(parameter: Parameter, own: str) -> str:
    """Return the values that a parameter takes, in words, followed by `own` unless that is empty."""
    parts = [f"one of {', '.join(map(str, parameter.choices))}" if parameter.choices else _KINDS[parameter.type]]
    low, high = parameter.min, parameter.max_length if parameter.max_length is not None else parameter.max
    unit = " characters" if parameter.max_length is not None else " entries" if parameter.type == "list" else ""
    if low is not None and high is not None:
        parts.append(f"{low:g} to {high:g}{unit}")
    elif low is not None or high is not None:
        parts.append(f"at least {low:g}{unit}" if high is None else f"at most {high:g}{unit}")
    parts += ["required"] if parameter.required else []
    parts += [f"default {parameter.default}"] if parameter.default is not None else []
    return "; ".join([", ".join(parts), *([own] if own else [])])


def example(parameter: Parameter) -> Any:
    """Return a valid value of a parameter."""
    if parameter.default is not None or parameter.choices:
        return parameter.default if parameter.default is not None else (parameter.choices or ("",))[0]
    if parameter.type == "image" or "image" in parameter.common:
        return PICTURE
    least = 1 if parameter.min is None else parameter.min
    examples: dict[str, Any] = {"integer": int(least), "number": least, "boolean": True, "object": {}}
    return [PICTURE] * int(parameter.min or 0) if parameter.type == "list" else examples.get(parameter.type, "text")


def scalar(value: Any) -> str:
    """Return a value as YAML on one line, quoted if YAML 1.1 would not read it as plain text."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return orjson.dumps(value).decode()
