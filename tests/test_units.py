from __future__ import annotations

import time
from datetime import datetime

import pytest

from runner.units import Rate, TimeOfDay, parse_duration, parse_end, parse_rate, seconds_until


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("30s", 30),
        ("2m", 120),
        ("6h", 21600),
        ("2d", 172800),
        ("1h30m", 5400),
        ("1.5h", 5400),
        (90, 90),
        (0.5, 0.5),
        ("90", 90),
    ],
)
def test_durations(written, seconds):
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written", ["", "-5", "5 s", "h", "-1s", "0s", 0, -1, True, None, [], "1w", "9" * 99 + "d", 1e300]
)
def test_invalid_durations(written):
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(written)


@pytest.mark.parametrize(
    ("written", "expected"),
    [(5, Rate(5)), (0.5, Rate(0.5)), ("5/s", Rate(5)), ("10/min", Rate(10, 60)), ("100 / h", Rate(100, 3600))],
)
def test_rates(written, expected):
    assert parse_rate(written) == expected


def test_rate_is_shown_as_it_is_written():
    """A period that no manifest can name is shown in seconds."""
    assert [str(parse_rate(written)) for written in (5, "0.5/second", "10/m", "100 / hour")] == [
        "5/s", "0.5/s", "10/min", "100/h",
    ]  # fmt: skip
    assert str(Rate(3, 5)) == "3 in 5 s"


@pytest.mark.parametrize("written", ["", "5", "5/day", 0, -1, True, None, "0/s", "/s", float("nan")])
def test_invalid_rates(written):
    with pytest.raises(ValueError, match="expected a rate"):
        parse_rate(written)


@pytest.mark.parametrize(
    ("written", "expected"), [("6h", 21600.0), (90, 90.0), ("06:30", TimeOfDay(6, 30)), ("0:05", TimeOfDay(0, 5))]
)
def test_ends_of_a_run(written, expected):
    assert parse_end(written) == expected
    assert isinstance(expected, float) or str(expected) == f"{expected.hour:02}:{expected.minute:02}"


@pytest.mark.parametrize(
    "written", ["", "24:00", "6:3", "06:60", "06:30:00", "6 am", 0, "-1h", None, ["06:30"], "tomorrow"]
)
def test_invalid_ends(written):
    with pytest.raises(ValueError, match="time of day: `06:30`"):
        parse_end(written)


@pytest.fixture
def berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("now", "end", "hours"),
    [
        ("2026-06-01T22:00:00+02:00", "06:30", 8.5),
        ("2026-06-01T06:00:00+02:00", "06:30", 0.5),
        ("2026-06-01T06:30:00+02:00", "06:30", 24.0),
        # an hour is left out in that night, and one comes twice
        ("2026-03-28T22:00:00+01:00", "06:00", 7.0),
        ("2026-10-24T22:00:00+02:00", "06:00", 9.0),
        ("2026-03-29T01:30:00+01:00", "02:30", 1.0),
        ("2026-10-25T02:30:00+01:00", "02:15", 23.75),
    ],
)
def test_time_of_day_comes_next_on_the_clock_here(now, end, hours):
    assert seconds_until(parse_end(end), datetime.fromisoformat(now).timestamp()) == hours * 3600


def test_duration_counts_from_the_begin():
    assert seconds_until(parse_end("90m"), 1e9) == 5400.0
