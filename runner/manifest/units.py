"""Parse durations (`90s`, `1h30m`, `2d`) and rates (`5`, `10/min`)."""

from __future__ import annotations

import math
import re

from runner.manifest.model import Rate

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])", re.ASCII)
_PERIODS = {"s": 1.0, "sec": 1.0, "second": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0, "h": 3600.0, "hour": 3600.0}
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*([a-z]+)", re.ASCII)
#: ten years, so that no sum of durations overflows
_LONGEST = 3650 * 86400.0
#: largest length of a text, in characters
_LONG = 100


def duration(value: object) -> float:
    """Return a duration in seconds, above 0. Raise ValueError that names the expected forms."""
    seconds = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and len(value) < _LONG:
        seconds = _read(value)
    if not 0 < seconds <= _LONGEST:
        raise ValueError("expected a duration: write `90s`, `2m`, `6h`, `1h30m`, `2d`, or a number of seconds")
    return seconds


def _read(text: str) -> float:
    if _NUMBER.fullmatch(text):
        return float(text)
    if _DURATION.fullmatch(text):
        return sum(float(count) * _SECONDS[unit] for count, unit in _PART.findall(text))
    return math.nan


def rate(value: object) -> Rate:
    """Return a rate above 0. Raise ValueError that names the expected forms."""
    count, seconds = math.nan, 1.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        count = float(value)
    elif isinstance(value, str) and len(value) < _LONG and (match := _RATE.fullmatch(value)):
        count, seconds = float(match[1]), _PERIODS.get(match[2], math.nan)
    if not (0 < count <= 1e6 and seconds > 0):  # noqa: PLR2004 - a higher rate is a mistake
        raise ValueError("expected a rate: write `5` (a second), `5/s`, `10/min` or `100/h`")
    return Rate(count, seconds)
