from __future__ import annotations

import pytest

from runner.report.gauge import Gauge


def test_rate_needs_two_seconds_of_history():
    meter = Gauge()
    assert (meter.submits, meter.rests, meter.eta({"queued": 3})) == (0.0, 0.0, None)
    meter.look({"queued": 10}, 100.0)
    meter.look({"queued": 5, "running": 5}, 101.0)
    assert meter.submits == 0.0


def test_submit_rate_completion_rate_and_eta():
    meter = Gauge()
    meter.look({"queued": 10}, 100.0)
    meter.look({"queued": 2, "running": 4, "done": 3, "failed": 1}, 104.0)
    assert (meter.submits, meter.rests) == (2.0, 1.0)
    assert meter.eta({"queued": 2, "running": 4, "done": 3, "failed": 1}) == 6.0


def test_only_the_last_minute_counts():
    meter = Gauge()
    for second in range(200):
        meter.look({"queued": 1000 - min(second, 100), "done": min(second, 100)}, float(second))
    assert meter.submits == 0.0
    assert len(meter._seen) == 61


def test_repurchased_tasks_make_no_negative_rate():
    meter = Gauge()
    meter.look({"failed": 5}, 0.0)
    meter.look({"queued": 5}, 10.0)
    assert meter.submits == meter.rests == pytest.approx(0.0)
