from __future__ import annotations

import pytest

from runner.report.stats import RateMeter


def test_rate_needs_two_seconds_of_history():
    meter = RateMeter()
    assert (meter.submit_rate, meter.completion_rate, meter.eta({"queued": 3})) == (0.0, 0.0, None)
    meter.observe({"queued": 10}, 100.0)
    meter.observe({"queued": 5, "running": 5}, 101.0)
    assert meter.submit_rate == 0.0


def test_submit_rate_completion_rate_and_eta():
    meter = RateMeter()
    meter.observe({"queued": 10}, 100.0)
    meter.observe({"queued": 2, "running": 4, "done": 3, "failed": 1}, 104.0)
    assert (meter.submit_rate, meter.completion_rate) == (2.0, 1.0)
    assert meter.eta({"queued": 2, "running": 4, "done": 3, "failed": 1}) == 6.0


def test_only_the_last_minute_counts():
    meter = RateMeter()
    for second in range(200):
        meter.observe({"queued": 1000 - min(second, 100), "done": min(second, 100)}, float(second))
    assert meter.submit_rate == 0.0
    assert len(meter._samples) == 61


def test_repurchased_tasks_make_no_negative_rate():
    meter = RateMeter()
    meter.observe({"failed": 5}, 0.0)
    meter.observe({"queued": 5}, 10.0)
    assert meter.submit_rate == meter.completion_rate == pytest.approx(0.0)
