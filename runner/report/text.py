"""Words and numbers as people read them, and other people's text made harmless for a terminal."""

from __future__ import annotations

import unicodedata

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_STEP = 1000


def duration(seconds: float | None) -> str:
    """`41 s`, `3 min 20 s`, `2 h 5 min`, `1 d 4 h`; a dash where it is unknown."""
    if seconds is None:
        return "–"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004 - one digit is worth it
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min {seconds % _MINUTE:.0f} s"
    if seconds < _DAY:
        return f"{seconds // _HOUR:.0f} h {seconds % _HOUR // _MINUTE:.0f} min"
    return f"{seconds // _DAY:.0f} d {seconds % _DAY // _HOUR:.0f} h"


def size(count: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < _STEP:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _STEP
    return f"{count:.1f} TB"


def harmless(text: str, longest: int = 200) -> str:
    """One line without control, format or surrogate characters (X31)."""
    kept = (char if not unicodedata.category(char).startswith("C") else " " for char in text[: 2 * longest])
    line = " ".join("".join(kept).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
