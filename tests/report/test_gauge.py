from __future__ import annotations

import pytest

from runner.report.gauge import Gauge


def test_a_rate_needs_more_than_a_glance():
    gauge = Gauge()
    assert (gauge.submits, gauge.rests, gauge.eta({"queued": 3})) == (0.0, 0.0, None)
    gauge.look({"queued": 10}, 100.0)
    gauge.look({"queued": 5, "running": 5}, 101.0)
    assert gauge.submits == 0.0


def test_submits_ends_and_what_is_left_are_told():
    gauge = Gauge()
    gauge.look({"queued": 10}, 100.0)
    gauge.look({"queued": 2, "running": 4, "done": 3, "failed": 1}, 104.0)
    assert (gauge.submits, gauge.rests) == (2.0, 1.0)
    assert gauge.eta({"queued": 2, "running": 4, "done": 3, "failed": 1}) == 6.0


def test_only_the_last_minute_counts():
    gauge = Gauge()
    for second in range(200):
        gauge.look({"queued": 1000 - min(second, 100), "done": min(second, 100)}, float(second))
    assert gauge.submits == 0.0
    assert len(gauge._seen) == 61


def test_tasks_that_are_bought_anew_make_no_rate():
    gauge = Gauge()
    gauge.look({"failed": 5}, 0.0)
    gauge.look({"queued": 5}, 10.0)
    assert gauge.submits == gauge.rests == pytest.approx(0.0)
