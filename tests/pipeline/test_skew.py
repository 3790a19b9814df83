"""How far two clocks are apart, by one answer: never more than is certain."""

from __future__ import annotations

import pytest

from runner.pipeline.clock import clock_skew, skew_refusal, skew_warning


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
def test_skew_is_at_most_what_is_certain(theirs, begun, ended, ahead):
    assert clock_skew(theirs, begun, ended) == ahead


def test_messages_name_the_side_and_the_hint():
    assert "120 s ahead of kling's" in skew_warning("kling", 120.2)
    assert "7200 s behind kling's" in skew_refusal("kling", -7200.0)
    assert all("timedatectl" in text for text in (skew_warning("a", 100), skew_refusal("a", 400)))
