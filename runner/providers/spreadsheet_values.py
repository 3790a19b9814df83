"""Recognise what a spreadsheet made of a ratio or a number: a time, a fraction of a day, or a date.

`16:9` becomes `16:09:00` or `4:09 PM`, saved unformatted 0.67292; `3/4` becomes `4-Mar`, `3月4日` or 45355. Nothing is
converted: the message names what it may have been, and the way back.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_PAIR = re.compile(r"(\d{1,2})([:/-])(\d{1,2})")
_TIME = re.compile(
    r"(?:(?P<date>\d{4}[-/]\d{1,2}[-/]\d{1,2})[ T])?(?P<early>上午|下午)?(?P<hour>\d{1,3}):(?P<minute>\d{2})"
    r"(?::(?P<second>\d{2})(?:\.\d+)?)?(?:\s?(?P<half>[AP]M))?",
    re.IGNORECASE,
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
#: a date in the order of year, month and day, or of day and month in figures; a day and a month by name; in Chinese
_DATES = (
    re.compile(r"(?:\d{4})[-/.](?P<first>\d{1,2})[-/.](?P<second>\d{1,2})(?:[ T]00:00(?::00)?)?"),
    re.compile(r"(?P<first>\d{1,2})[-/.](?P<second>\d{1,2})[-/.](?:\d{4}|\d{2})"),
    re.compile(r"(?P<first>\d{1,2})[- ](?P<month>[A-Za-z]{3})[a-z]*(?:[- ]\d{2,4})?"),
    re.compile(r"(?P<month>[A-Za-z]{3})[a-z]*[- ](?P<first>\d{1,2})(?:,? \d{4})?"),
    re.compile(r"(?:\d{4}年)?(?P<first>\d{1,2})月(?P<second>\d{1,2})日"),
)
#: the day that spreadsheets number 0, and the first and last number that is taken for a date: 2000 to 2064
_DAY_ZERO, _FIRST_DAY, _LAST_DAY = date(1899, 12, 30), 36_526, 60_000
#: days in the first of which a spreadsheet puts a time without a date
_TIME_DAYS = {"1899-12-30": 0, "1899-12-31": 0, "1900-01-00": 0, "1900-01-01": 1, "1900-01-02": 2, "1904-01-01": 0}
_MINUTES = 1_440
#: minutes that a fraction of a day may be off, since it is shown with a few digits
_TOLERANCE = 0.1


def spreadsheet_damage(value: Any, choices: Iterable[Any] = ()) -> tuple[str, str] | None:
    """Return what a spreadsheet made of a value (`a time` or `a date`), and the choice that it was, or None.

    The choice is empty if none fits, and there are two, like `3:4 or 4:3`, where day and month may be either.
    """
    text = str(value).strip()
    if isinstance(value, bool) or not text or len(text) > 40:  # noqa: PLR2004 - no date is as long
        return None
    pairs = {str(choice): found for choice in choices if (found := _PAIR.fullmatch(str(choice)))}
    if (times := _times(text, is_ratio=bool(pairs))) is not None:
        return "a time", _matching(pairs, times)
    if (days := _days(text, is_ratio=bool(pairs))) is not None:
        return "a date", _matching(pairs, [days, days[::-1]])
    return None


def _matching(pairs: dict[str, re.Match[str]], numbers: list[tuple[int, int]]) -> str:
    found = [text for text, pair in pairs.items() if (int(pair[1]), int(pair[3])) in numbers]
    return " or ".join(found)


def _times(text: str, *, is_ratio: bool) -> list[tuple[int, int]] | None:
    """Return the pairs of numbers that a time may have been, or None for what is none."""
    if found := _TIME.fullmatch(text):
        hour, minute, second = int(found["hour"]), int(found["minute"]), int(found["second"] or 0)
        half = (found["half"] or {"上午": "AM", "下午": "PM"}.get(found["early"] or "", "")).upper()
        if half:
            hour = hour % 12 + 12 * (half == "PM")
        if found["date"]:
            day = _TIME_DAYS.get("-".join(each.zfill(2) for each in re.split("[-/]", found["date"])))
            if day is None:
                return None
            hour += 24 * day
        return [(hour, minute), (minute, second)] if hour == 0 else [(hour, minute)]
    if is_ratio and re.fullmatch(r"[0-3]?\.\d{2,}(?:…|\.\.\.)?", text):
        minutes = float(text.rstrip("….")) * _MINUTES
        near = round(minutes)
        if abs(minutes - near) < _TOLERANCE:
            return [divmod(near, 60)]
    return None


def _days(text: str, *, is_ratio: bool) -> tuple[int, int] | None:
    """Return month and day of a date, in either order, or None for what is none."""
    if is_ratio and re.fullmatch(r"\d{5}(?:\.0)?", text) and _FIRST_DAY <= float(text) <= _LAST_DAY:
        day = _DAY_ZERO + timedelta(days=int(float(text)))
        return day.month, day.day
    for form in _DATES:
        if found := form.fullmatch(text):
            named = found.groupdict()
            second = named.get("second")
            if second is None:
                name = named["month"].lower()
                if name not in _MONTHS:
                    return None
                second = str(_MONTHS.index(name) + 1)
            return int(named["first"]), int(second)
    return None
