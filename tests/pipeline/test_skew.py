"""How far two clocks are apart, by one answer: never more than is certain."""

from __future__ import annotations

import pytest

from runner.pipeline.skew import refused, said, skew


@pytest.mark.parametrize(
    ("theirs", "begun", "ended", "ahead"),
    [
        (1000.0, 1000.4, 1000.9, 0.0),
        (1000.0, 1000.0, 1059.0, 0.0),
        (1000.0, 1061.0, 1062.0, 60.0),
        (1000.0, 1001.0, 1121.0, 0.0),
        (1000.0, 699.0, 700.0, -300.0),
        (1000.0, 1301.0, 1302.0, 300.0),
    ],
)
def test_the_exchange_itself_and_the_missing_fractions_are_not_held_against_anyone(theirs, begun, ended, ahead):
    assert skew(theirs, begun, ended) == ahead


def test_what_is_said_names_the_side_and_the_cure():
    assert "120 s ahead of kling's" in said("kling", 120.2)
    assert "7200 s behind kling's" in refused("kling", -7200.0)
    assert all("timedatectl" in words for words in (said("a", 100), refused("a", 400)))
