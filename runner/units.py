"""Parse durations (`90s`, `1h30m`, `2d`) and times of day (`06:30`), and parse and format rates (`5`, `10/min`)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime, timedelta

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+", re.ASCII)
_PLAIN_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])", re.ASCII)
_PERIODS = {"s": 1.0, "sec": 1.0, "second": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0, "h": 3600.0, "hour": 3600.0}
#: short names of the periods in which rates are shown
_PERIOD_NAMES = {1.0: "s", 60.0: "min", 3600.0: "h"}
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*([a-z]+)", re.ASCII)
_TIME_OF_DAY = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)", re.ASCII)
#: ten years, so that no sum of durations overflows
_MAX_SECONDS = 3650 * 86400.0
#: largest length of a text, in characters
_MAX_LENGTH = 100


@dataclass(frozen=True, slots=True)
class Rate:
    """Rate of at most `count` requests in any `seconds`."""

    count: float
    seconds: float = 1.0

    @property
    def per_second(self) -> float:
        """Return the number of requests a second."""
        return self.count / self.seconds

    def __str__(self) -> str:
        name = _PERIOD_NAMES.get(self.seconds)
        return f"{self.count:g}/{name}" if name else f"{self.count:g} in {self.seconds:g} s"


@dataclass(frozen=True, slots=True)
class TimeOfDay:
    """Time on the clock of this machine's time zone."""

    hour: int
    minute: int

    def seconds_from(self, now: float) -> float:
        """Return the seconds from `now` (seconds since the epoch) until the clock shows this time next, above 0."""
        shown = datetime.fromtimestamp(now)  # noqa: DTZ006 - the clock of this machine is meant
        next_time = shown.replace(hour=self.hour, minute=self.minute, second=0, microsecond=0, fold=0)
        # on the wall clock, so that a day on which the clock is changed has its own length
        while next_time.timestamp() <= now:
            next_time = (next_time + timedelta(days=1)).replace(hour=self.hour, minute=self.minute)
        return next_time.timestamp() - now

    def __str__(self) -> str:
        return f"{self.hour:02}:{self.minute:02}"


def parse_end(value: object) -> float | TimeOfDay:
    """Return the end of a run: a duration in seconds, or a time of day. Raise ValueError that names the forms."""
    if isinstance(value, str) and (match := _TIME_OF_DAY.fullmatch(value)):
        return TimeOfDay(int(match[1]), int(match[2]))
    try:
        return parse_duration(value)
    except ValueError:
        raise ValueError("expected an end: write a duration such as `6h` or `90m`, or a time of day: `06:30`") from None


def seconds_until(end: float | TimeOfDay, now: float) -> float:
    """Return the seconds until an end of a run that begins at `now`, in seconds since the epoch."""
    return end.seconds_from(now) if isinstance(end, TimeOfDay) else end


def parse_duration(value: object) -> float:
    """Return a duration in seconds, above 0. Raise ValueError that names the expected forms."""
    seconds = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and len(value) < _MAX_LENGTH:
        seconds = _parse_text(value)
    if not 0 < seconds <= _MAX_SECONDS:
        raise ValueError("expected a duration: write `90s`, `2m`, `6h`, `1h30m`, `2d`, or a number of seconds")
    return seconds


def _parse_text(text: str) -> float:
    if _PLAIN_NUMBER.fullmatch(text):
        return float(text)
    if _DURATION.fullmatch(text):
        return sum(float(count) * _SECONDS[unit] for count, unit in _DURATION_PART.findall(text))
    return math.nan


def parse_rate(value: object) -> Rate:
    """Return a rate above 0. Raise ValueError that names the expected forms."""
    count, seconds = math.nan, 1.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        count = float(value)
    elif isinstance(value, str) and len(value) < _MAX_LENGTH and (match := _RATE.fullmatch(value)):
        count, seconds = float(match[1]), _PERIODS.get(match[2], math.nan)
    if not (0 < count <= 1e6 and seconds > 0):  # noqa: PLR2004 - a higher rate is a mistake
        raise ValueError("expected a rate: write `5` (a second), `5/s`, `10/min` or `100/h`")
    return Rate(count, seconds)
