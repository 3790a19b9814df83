"""Format numbers and durations, quote shell words, and sanitize foreign text for a terminal."""

from __future__ import annotations

import re
import shlex
import unicodedata

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_STEP = 1000
#: words that no shell interprets: letters of any language, and a few signs
_PLAIN = re.compile(r"[\w@%+=:,./-]+")


def duration(seconds: float | None) -> str:
    """Return seconds as `0.4 s`, `41 s`, `6 min`, `3 min 20 s`, `2 h 5 min` or `1 d 3 h`, and None as a dash."""
    if seconds is None:
        return "–"
    if seconds < 9.95:  # noqa: PLR2004 - below ten, one decimal is shown; 9.95 rounds to ten
        return f"{seconds:.1f} s"
    rounded = round(seconds)
    if rounded < _MINUTE:
        return f"{rounded} s"
    if rounded < _HOUR:
        return _two(rounded // _MINUTE, "min", rounded % _MINUTE, "s")
    if rounded < _DAY:
        return _two(rounded // _HOUR, "h", rounded % _HOUR // _MINUTE, "min")
    return _two(rounded // _DAY, "d", rounded % _DAY // _HOUR, "h")


def _two(large: int, name: str, small: int, rest: str) -> str:
    """Return a value in two units, or in the large one only if the small one is zero."""
    return f"{large} {name} {small} {rest}" if small else f"{large} {name}"


def size(count: float) -> str:
    """Return a number of bytes in decimal units, such as `170.3 kB`."""
    if count < _STEP:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= _STEP
        if round(count, 1) < _STEP:
            return f"{count:.1f} {unit}"
    return f"{count / _STEP:.1f} TB"


def many(count: int, noun: str) -> str:
    """Return a count with its noun: `1 task`, `2 tasks`, `12,000 tasks`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def pace(per_second: float) -> str:
    """Return a rate in the unit that makes it at least one: `1.9/s`, `12/min`, `4/h`. No rate is `0/s`."""
    if per_second <= 0:
        return "0/s"
    seconds, unit = (1, "s") if per_second >= 1 else (_MINUTE, "min") if per_second * _MINUTE >= 1 else (_HOUR, "h")
    return f"{float(f'{per_second * seconds:.2g}'):g}/{unit}"


def shell(*words: str) -> str:
    """Return words quoted for a shell and joined by blanks.

    A command that is copied from a message runs nothing else. Unlike `shlex.join`, letters of any language, such as
    Chinese, stay unquoted.
    """
    return " ".join(word if _PLAIN.fullmatch(word) else shlex.quote(word) for word in words)


def harmless(text: str, max_length: int = 200) -> str:
    """Return foreign text as one line without control, format or surrogate characters.

    Terminal escape sequences in a provider's message must not reach the terminal. Longer text is cut to `max_length`
    characters.
    """
    kept = (char if not unicodedata.category(char).startswith("C") else " " for char in text[: 2 * max_length])
    line = " ".join("".join(kept).split())
    return line if len(line) <= max_length else f"{line[: max_length - 1]}…"
