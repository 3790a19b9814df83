"""The life table: what it returns before it has learned anything, and what it learns from polls."""

import math
import random

import pytest

from runner.pipeline.poll_schedule import Hazard


def test_the_guess_stands_until_there_is_something_better():
    curve = Hazard(30.0).curve()
    assert curve.median == pytest.approx(30.0, rel=0.2)
    assert 15 < curve.next_age(0.0, 0.3) < 30


@pytest.mark.parametrize("median", [3.0, 30.0, 300.0])
def test_learns_a_wrongly_guessed_median_from_coarse_polls(median):
    dice, hazard = random.Random(1), Hazard(16.0)
    for _ in range(400):
        latency, step = median * dice.lognormvariate(0.0, 0.5), median / 4
        polls = int(latency / step)
        for number in range(1, polls + 1):
            hazard.record_running((number - 1) * step, number * step)
        hazard.record_end(polls * step, (polls + 1) * step)
    curve = hazard.curve()
    assert curve.median == pytest.approx(median, rel=0.15)
    # 0.3 of those that run at the median end within this: z from 0 to 0.385 of a spread of 0.5
    assert curve.next_age(median, 0.3) == pytest.approx(median * math.exp(0.5 * 0.385), rel=0.1)


def test_tasks_that_only_run_on_move_the_next_poll_away():
    hazard = Hazard(16.0)
    before = hazard.curve().next_age(0.0, 0.3)
    for _ in range(50):
        hazard.record_running(0.0, 60.0)
    after = hazard.curve()
    assert after.next_age(0.0, 0.3) > 2 * before
    assert after.median == math.inf, "unknown"


def test_an_ending_counts_half_way_between_two_polls():
    late, known = Hazard(30.0), Hazard(30.0)
    for _ in range(500):
        late.record_running(0.0, 20.0)
        late.record_end(20.0, 40.0)
        known.record_end(30.0, 30.0)
        known.record_running(0.0, 30.0)
    assert late.curve().median == pytest.approx(known.curve().median, rel=0.01)


def test_old_observations_fade():
    hazard = Hazard(10.0)
    for _ in range(3000):
        hazard.record_end(0.0, 20.0)
    for _ in range(3000):
        hazard.record_running(0.0, 60.0)
        hazard.record_end(60.0, 60.0)
    assert hazard.curve().median == pytest.approx(60.0, rel=0.1)


def test_a_curve_never_changes():
    hazard = Hazard(10.0)
    held = hazard.curve()
    before = held.next_age(5.0, 0.3)
    for _ in range(100):
        hazard.record_running(0.0, 50.0)
    assert held.next_age(5.0, 0.3) == before
    assert hazard.curve().next_age(5.0, 0.3) > before


@pytest.mark.parametrize("age", [0.0, 0.1, 0.25, 7.0, 1e5, 1e9])
def test_the_next_age_is_never_behind(age):
    hazard = Hazard(10.0)
    hazard.record_running(0.0, 1e9)
    hazard.record_end(0.0, 1e9)
    curve = hazard.curve()
    assert all(curve.next_age(age, share) >= min(age, 1e5) for share in (0.04, 0.3, 0.9))
    assert repr(hazard).startswith("Hazard(median=")
