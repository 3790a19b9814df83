"""Format numbers and durations, quote shell words, and sanitize foreign text for a terminal."""

from __future__ import annotations

import re
import shlex
import unicodedata
from typing import Any

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_STEP = 1000
#: words that no shell interprets: letters of any language, and a few signs
_UNQUOTED = re.compile(r"[\w@%+=:,./-]+")


class WrittenInteger(int):
    """Whole number that was written otherwise than Python writes it, such as `0x10`: its text is what was written."""

    written: str

    def __str__(self) -> str:
        return self.written


class WrittenFloat(float):
    """Number that was written otherwise than Python writes it, such as `1.10`: its text is what was written."""

    written: str

    def __str__(self) -> str:
        return self.written


WRITTEN_TYPES = frozenset((WrittenInteger, WrittenFloat))


def number_as_written(number: float, written: str) -> float:
    """Return a number that remembers how it was written, or the number itself if its text is that already."""
    if str(number) == written:
        return number
    remembering = WrittenInteger(number) if isinstance(number, int) else WrittenFloat(number)
    remembering.written = written
    return remembering


def plain_numbers(value: Any) -> Any:
    """Return a value in which numbers, at any depth, do not remember how they were written."""
    match value:
        case WrittenInteger():
            return int(value)
        case WrittenFloat():
            return float(value)
        case dict():
            return {name: plain_numbers(each) for name, each in value.items()}
        case list():
            return [plain_numbers(each) for each in value]
        case _:
            return value


def has_written_number(value: Any) -> bool:
    """Return whether a number in a value, at any depth, remembers how it was written."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return type(value) in WRITTEN_TYPES or any(map(has_written_number, parts))


def texts_of_numbers(value: Any) -> Any:
    """Return a value in which numbers that remember how they were written, at any depth, are that text."""
    match value:
        case WrittenInteger() | WrittenFloat():
            return value.written
        case dict():
            return {name: texts_of_numbers(each) for name, each in value.items()}
        case list():
            return [texts_of_numbers(each) for each in value]
        case _:
            return value


def format_duration(seconds: float | None) -> str:
    """Return seconds as `0.4 s`, `41 s`, `6 min`, `3 min 20 s`, `2 h 5 min` or `1 d 3 h`, and None as a dash."""
    if seconds is None:
        return "–"
    if seconds < 9.95:  # noqa: PLR2004 - below ten, one decimal is shown; 9.95 rounds to ten
        return f"{seconds:.1f} s"
    rounded = round(seconds)
    if rounded < _MINUTE:
        return f"{rounded} s"
    if rounded < _HOUR:
        return _two_units(rounded // _MINUTE, "min", rounded % _MINUTE, "s")
    if rounded < _DAY:
        return _two_units(rounded // _HOUR, "h", rounded % _HOUR // _MINUTE, "min")
    return _two_units(rounded // _DAY, "d", rounded % _DAY // _HOUR, "h")


def _two_units(large: int, name: str, small: int, rest: str) -> str:
    """Return a value in two units, or in the large one only if the small one is zero."""
    return f"{large} {name} {small} {rest}" if small else f"{large} {name}"


def format_size(count: float) -> str:
    """Return a number of bytes in decimal units, such as `170.3 kB`."""
    if count < _STEP:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= _STEP
        if round(count, 1) < _STEP:
            return f"{count:.1f} {unit}"
    return f"{count / _STEP:.1f} TB"


def pluralize(count: int, noun: str) -> str:
    """Return a count with its noun: `1 task`, `2 tasks`, `12,000 tasks`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def format_rate(per_second: float) -> str:
    """Return a rate in the unit that makes it at least one: `1.9/s`, `12/min`, `4/h`. No rate is `0/s`."""
    if per_second <= 0:
        return "0/s"
    seconds, unit = (1, "s") if per_second >= 1 else (_MINUTE, "min") if per_second * _MINUTE >= 1 else (_HOUR, "h")
    return f"{float(f'{per_second * seconds:.2g}'):g}/{unit}"


def shell_join(*words: str) -> str:
    """Return words quoted for a shell and joined by blanks.

    A command that is copied from a message runs nothing else. Unlike `shlex.join`, letters of any language, such as
    Chinese, stay unquoted.
    """
    return " ".join(word if _UNQUOTED.fullmatch(word) else shlex.quote(word) for word in words)


def sanitize(text: str, max_length: int | None = 200, *, collapse: bool = True, escape: bool = False) -> str:
    """Return foreign text as one line without control, format or surrogate characters.

    Terminal escape sequences in a provider's message must not reach the terminal. Each such character becomes a space,
    or its backslash escape if `escape` is set. If `collapse` is set, runs of white space become one space, and an
    ellipsis ends a text that was cut. Longer text is cut to `max_length` characters, or not at all if it is None.
    """
    if max_length is not None:
        text = text[: 2 * max_length]  # bounds the work; white space may still collapse
    if not text.isprintable():
        text = "".join(char if char.isprintable() else _escaped(char) if escape else " " for char in text)
    if collapse:
        text = " ".join(text.split())
    if max_length is None or len(text) <= max_length:
        return text
    return f"{text[: max_length - 1]}…" if collapse else text[:max_length]


def _escaped(char: str) -> str:
    """Return the backslash escape of a character, except that a space of any width stays as it is."""
    return char if unicodedata.category(char) == "Zs" else char.encode("unicode_escape").decode()
