"""Whom to ask and when, by arithmetic alone."""

from dataclasses import replace

import pytest

from benchmarks.simulate import CASES, World, bound
from runner.lifecycle.task import State, Task
from runner.pipeline.looks import CALM, CLOSING, EAGER, Bounds, Looks

BATCH, SINGLE = Bounds(first=4.0, longest=30.0, size=50), Bounds(first=4.0, longest=30.0)
BEGAN = 1000.0


def task(number=1, *, born=BEGAN, due=None, failures=0, operation="image"):
    return Task(number, "k", "p", operation, "m", State.RUNNING, due, submitted_at=born, failures=failures)


def taught(bounds, latency=30.0, count=300):
    """Looks that have seen so many tasks, which all took this long."""
    looks = Looks(bounds, BEGAN)
    for number in range(count):
        looks.running(task(number), BEGAN + latency - 1)
        looks.ended(task(number), BEGAN + latency + 1)
    return looks


def gap(looks, age, haste=CALM):
    """Seconds to the look after one at this age."""
    one = task(7, due=BEGAN)
    return looks.plan(BEGAN + age, haste)(one) - BEGAN - age


def test_the_first_look_waits_until_it_is_worth_one():
    looks = taught(BATCH)
    assert 27 < looks.first("image", "m", CALM) <= 30
    assert looks.first("video", "m", CALM) < 16, "of what nobody has seen yet there is a guess"
    assert Looks(Bounds(first=20.0, longest=15.0), BEGAN).first("image", "m", CALM) == 20.0


def test_a_look_is_near_where_tasks_end_and_far_where_they_do_not():
    looks = taught(BATCH)
    assert gap(looks, 0.5) == pytest.approx(15.0, rel=0.1), "half the median at most"
    assert gap(looks, 29.0) < 3
    assert gap(looks, 0.5, EAGER) == pytest.approx(30 / 16, rel=0.1)
    assert gap(looks, 6000.0) == 30.0, "the provider's longest"
    assert gap(looks, 600.0, EAGER) == 600.0 / 80, "what is long overdue is not asked about all the time"


def test_no_look_is_nearer_than_the_bounds_allow():
    assert gap(taught(BATCH, latency=2.0), 2.0, EAGER) == pytest.approx(1.0)
    long = Looks(BATCH, BEGAN)
    for number in range(300):
        long.ended(task(number), BEGAN + 400)
    assert gap(long, 199.0, EAGER) == pytest.approx(0.03 * 200, rel=0.1)
    assert gap(taught(Bounds(first=0.1), latency=0.5), 0.5, EAGER) == pytest.approx(0.1)


def test_a_shared_limit_makes_looks_rarer():
    ages = range(5, 30, 5)
    shared, apart = taught(replace(BATCH, shared=True)), taught(BATCH)
    assert all(gap(shared, age) >= gap(apart, age) for age in ages)
    assert shared.first("image", "m", CALM) > apart.first("image", "m", CALM)


def test_a_call_goes_out_when_it_is_full_or_its_oldest_look_has_lingered():
    looks = Looks(BATCH, BEGAN)
    assert looks.call_at(50.0, None, CALM) == 52.0
    assert looks.call_at(50.0, 51.5, CALM) == 51.5
    assert looks.call_at(50.0, 90.0, CALM) == 52.0
    assert looks.call_at(50.0, None, EAGER) == 50.2
    assert Looks(SINGLE, BEGAN).call_at(50.0, 70.0, CALM) == 50.0, "one id fills a call"


def test_places_that_are_left_go_to_those_due_next():
    looks, now = taught(BATCH), BEGAN + 20
    plan = looks.plan(now, CALM)
    assert plan(task(1, due=now - 1)) > now
    assert plan(task(2, due=now + 5)) > now, "not due, but there is a place"
    looks.running(task(3), now - 0.5)
    assert plan(task(3, due=now + 5)) is None, "the last look was just now"
    assert plan(task(4, due=now + 5, failures=1)) is None, "trouble has its own wait"
    assert plan(task(4, due=now - 5, failures=1)) > now


def test_each_second_counts_in_a_full_window_and_at_the_end():
    looks = Looks(BATCH, BEGAN)
    assert looks.haste(queued=True, many=True, running=95, window=100) is EAGER
    assert looks.haste(queued=True, many=True, running=80, window=100) is CALM
    assert looks.haste(queued=True, many=False, running=3, window=None) is CALM
    assert looks.haste(queued=False, many=False, running=3, window=None) is EAGER


def test_with_nothing_left_to_submit_looks_come_sooner_where_they_share_calls():
    assert Looks(BATCH, BEGAN).haste(queued=False, many=True, running=3000, window=None) is CLOSING
    assert Looks(SINGLE, BEGAN).haste(queued=False, many=True, running=3000, window=None) is CALM
    looks = taught(BATCH)
    assert gap(looks, 0.5, CLOSING) == pytest.approx(30 / 6, rel=0.1)
    assert gap(looks, 29.0, EAGER) <= gap(looks, 29.0, CLOSING) <= gap(looks, 29.0)
    assert looks.call_at(50.0, None, CLOSING) == 51.0


def test_what_was_submitted_at_once_is_known_soon_after_it_ends():
    """A thousand tasks in three seconds, in virtual time: nothing can be learned from tasks that were sent before."""
    (case,) = (each for each in CASES if each.even)
    world = World(case, case.latencies())
    assert world.play() / bound(case, case.latencies()) < case.goal
    assert world.calls / case.tasks < 0.15
    assert max(world.late) < 5.0


def test_the_last_few_are_not_bound_to_what_was_planned_among_many():
    looks = taught(BATCH)
    never, seen = task(1, due=BEGAN + 31), task(2, due=BEGAN + 40)
    looks.running(seen, BEGAN + 29.5)
    at = looks.call_at(BEGAN + 31, None, EAGER, few=[never, seen])
    assert BEGAN + 25 < at < BEGAN + 31
    late = looks.call_at(BEGAN + 31, None, EAGER, few=[replace(never, failures=2), replace(seen, failures=1)])
    assert late == BEGAN + 31, "what the server asked for is kept"
    assert all(looks.plan(at, EAGER)(one) for one in (never,))


def test_whoever_is_hastened_may_be_asked():
    """One arithmetic for both, to the last bit: a call that asks about nobody would be made again and again."""
    for median in (30.0, 100.1, 333.3):
        looks = taught(BATCH, latency=median)
        for step in range(200):
            seen = task(1, due=BEGAN + 1e6)
            looks.running(seen, BEGAN + 0.37 * step)
            at = looks.call_at(BEGAN + 1e6, None, EAGER, few=[seen])
            assert looks.plan(at, EAGER)(seen) is not None


def test_what_this_run_has_not_watched_teaches_nothing():
    looks = Looks(BATCH, BEGAN)
    before = gap(looks, 10.0)
    for number in range(200):
        looks.ended(task(number, born=BEGAN - 5000), BEGAN + 1)
    assert gap(looks, 10.0) == before
    looks.running(task(1, born=BEGAN - 5000), BEGAN + 1)
    looks.ended(task(1, born=BEGAN - 5000), BEGAN + 9)
    assert "1 seen" not in repr(looks)


def test_only_so_many_are_remembered(monkeypatch):
    monkeypatch.setattr("runner.pipeline.looks._MOST", 3)
    looks = Looks(BATCH, BEGAN)
    for number in range(10):
        looks.running(task(number), BEGAN + number)
    assert repr(looks).endswith("3 seen)")
    assert looks.plan(BEGAN + 9.5, CALM)(task(9, due=BEGAN + 20)) is None
    assert looks.plan(BEGAN + 9.5, CALM)(task(1, due=BEGAN + 20)) is not None
