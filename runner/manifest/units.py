"""Durations (`90s`, `1h30m`, `2d`) and rates (`5`, `10/min`) as people write them."""

from __future__ import annotations

import math
import re

from runner.manifest.model import Rate

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])", re.ASCII)
_PERIODS = {"s": 1.0, "sec": 1.0, "second": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0, "h": 3600.0, "hour": 3600.0}
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*([a-z]+)", re.ASCII)
#: no wait is longer than ten years, and no sum of waits overflows
_LONGEST = 3650 * 86400.0


def duration(value: object) -> float:
    """Seconds, above 0; ValueError for anything else."""
    seconds = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and len(value) < 100 and _DURATION.fullmatch(value):  # noqa: PLR2004 - no duration is longer
        seconds = sum(float(count) * _SECONDS[unit] for count, unit in _PART.findall(value))
    if not 0 < seconds <= _LONGEST:
        raise ValueError("expected a duration")
    return seconds


def rate(value: object) -> Rate:
    """A rate above 0; ValueError for anything else."""
    count, seconds = math.nan, 1.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        count = float(value)
    elif isinstance(value, str) and len(value) < 100 and (match := _RATE.fullmatch(value)):  # noqa: PLR2004 - no rate is longer
        count, seconds = float(match[1]), _PERIODS.get(match[2], math.nan)
    if not (0 < count <= 1e6 and seconds > 0):  # noqa: PLR2004 - more is a slip
        raise ValueError("expected a rate")
    return Rate(count, seconds)
