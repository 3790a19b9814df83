from __future__ import annotations

import pytest

from runner.units import Rate, parse_duration, parse_rate


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
