from __future__ import annotations

import pytest

from runner.manifest.model import Rate
from runner.manifest.units import duration, rate


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
    assert duration(written) == seconds


@pytest.mark.parametrize(
    "written", ["", "-5", "5 s", "h", "-1s", "0s", 0, -1, True, None, [], "1w", "9" * 99 + "d", 1e300]
)
def test_invalid_durations(written):
    with pytest.raises(ValueError, match="expected a duration"):
        duration(written)


@pytest.mark.parametrize(
    ("written", "expected"),
    [(5, Rate(5)), (0.5, Rate(0.5)), ("5/s", Rate(5)), ("10/min", Rate(10, 60)), ("100 / h", Rate(100, 3600))],
)
def test_rates(written, expected):
    assert rate(written) == expected


@pytest.mark.parametrize("written", ["", "5", "5/day", 0, -1, True, None, "0/s", "/s", float("nan")])
def test_invalid_rates(written):
    with pytest.raises(ValueError, match="expected a rate"):
        rate(written)
