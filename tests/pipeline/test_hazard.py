"""The life table alone: what it says before it knows anything, and what looks teach it."""

import math
import random

import pytest

from runner.pipeline.hazard import Hazard


def test_the_guess_stands_until_there_is_something_better():
    curve = Hazard(30.0).curve()
    assert curve.median == pytest.approx(30.0, rel=0.2)
    assert 15 < curve.next_age(0.0, 0.3) < 30


@pytest.mark.parametrize("median", [3.0, 30.0, 300.0])
def test_it_learns_a_median_that_was_guessed_wrong_from_coarse_looks(median):
    dice, hazard = random.Random(1), Hazard(16.0)
    for _ in range(400):
        latency, step = median * dice.lognormvariate(0.0, 0.5), median / 4
        looks = int(latency / step)
        for number in range(1, looks + 1):
            hazard.passed((number - 1) * step, number * step)
        hazard.ended(looks * step, (looks + 1) * step)
    curve = hazard.curve()
    assert curve.median == pytest.approx(median, rel=0.15)
    # 0.3 of those that run at the median end within this: z from 0 to 0.385 of a spread of 0.5
    assert curve.next_age(median, 0.3) == pytest.approx(median * math.exp(0.5 * 0.385), rel=0.1)


def test_tasks_that_only_run_on_move_the_next_look_away():
    hazard = Hazard(16.0)
    before = hazard.curve().next_age(0.0, 0.3)
    for _ in range(50):
        hazard.passed(0.0, 60.0)
    after = hazard.curve()
    assert after.next_age(0.0, 0.3) > 2 * before
    assert after.median == math.inf, "nobody knows"


def test_an_ending_counts_half_way_between_two_looks():
    late, known = Hazard(30.0), Hazard(30.0)
    for _ in range(500):
        late.passed(0.0, 20.0)
        late.ended(20.0, 40.0)
        known.ended(30.0, 30.0)
        known.passed(0.0, 30.0)
    assert late.curve().median == pytest.approx(known.curve().median, rel=0.01)


def test_old_news_fade():
    hazard = Hazard(10.0)
    for _ in range(3000):
        hazard.ended(0.0, 20.0)
    for _ in range(3000):
        hazard.passed(0.0, 60.0)
        hazard.ended(60.0, 60.0)
    assert hazard.curve().median == pytest.approx(60.0, rel=0.1)


def test_what_was_known_does_not_change_under_whoever_holds_it():
    hazard = Hazard(10.0)
    held = hazard.curve()
    said = held.next_age(5.0, 0.3)
    for _ in range(100):
        hazard.passed(0.0, 50.0)
    assert held.next_age(5.0, 0.3) == said
    assert hazard.curve().next_age(5.0, 0.3) > said


@pytest.mark.parametrize("age", [0.0, 0.1, 0.25, 7.0, 1e5, 1e9])
def test_the_next_age_is_never_behind(age):
    hazard = Hazard(10.0)
    hazard.passed(0.0, 1e9)
    hazard.ended(0.0, 1e9)
    curve = hazard.curve()
    assert all(curve.next_age(age, share) >= min(age, 1e5) for share in (0.04, 0.3, 0.9))
    assert repr(hazard).startswith("Hazard(median=")
