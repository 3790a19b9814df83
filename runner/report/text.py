"""Words and numbers as people read them, and other people's text made harmless for a terminal."""

from __future__ import annotations

import re
import shlex
import unicodedata

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_STEP = 1000
#: what no shell takes for more than it says: letters of any language, and a few signs
_PLAIN = re.compile(r"[\w@%+=:,./-]+")


def duration(seconds: float | None) -> str:
    """`0.4 s`, `41 s`, `6 min`, `3 min 20 s`, `2 h 5 min`, `1 d 3 h`; a dash where it is unknown."""
    if seconds is None:
        return "–"
    if seconds < 9.95:  # noqa: PLR2004 - below ten, one digit is worth it; what rounds to ten is ten
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return _two(whole // _MINUTE, "min", whole % _MINUTE, "s")
    if whole < _DAY:
        return _two(whole // _HOUR, "h", whole % _HOUR // _MINUTE, "min")
    return _two(whole // _DAY, "d", whole % _DAY // _HOUR, "h")


def _two(large: int, name: str, small: int, rest: str) -> str:
    """In two units, without a rest of nothing."""
    return f"{large} {name} {small} {rest}" if small else f"{large} {name}"


def size(count: float) -> str:
    """Bytes in decimal units."""
    if count < _STEP:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= _STEP
        if round(count, 1) < _STEP:
            return f"{count:.1f} {unit}"
    return f"{count / _STEP:.1f} TB"


def many(count: int, noun: str) -> str:
    """`1 task`, `2 tasks`, `12,000 tasks`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def pace(per_second: float) -> str:
    """How often, in the unit in which it is no long fraction: `1.9/s`, `12/min`, `4/h`; `0/s` is not at all."""
    if per_second <= 0:
        return "0/s"
    seconds, unit = (1, "s") if per_second >= 1 else (_MINUTE, "min") if per_second * _MINUTE >= 1 else (_HOUR, "h")
    return f"{float(f'{per_second * seconds:.2g}'):g}/{unit}"


def shell(*words: str) -> str:
    """A command, or a word of one, as a shell takes it (X35); a name in Chinese needs no quotes."""
    return " ".join(word if _PLAIN.fullmatch(word) else shlex.quote(word) for word in words)


def harmless(text: str, longest: int = 200) -> str:
    """One line without control, format or surrogate characters (X31)."""
    kept = (char if not unicodedata.category(char).startswith("C") else " " for char in text[: 2 * longest])
    line = " ".join("".join(kept).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
