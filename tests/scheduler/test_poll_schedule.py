"""When to poll which task, by arithmetic alone."""

from dataclasses import replace

import pytest

from benchmarks.simulate import CASES, World, bound
from runner.scheduler.poll_schedule import HIGH, LOW, MEDIUM, PollBounds, PollSchedule
from runner.tasks.models import State, Task

BATCH, SINGLE = PollBounds(first=4.0, longest=30.0, size=50), PollBounds(first=4.0, longest=30.0)
BEGAN = 1000.0


def task(number=1, *, born=BEGAN, due=None, failures=0, operation="image"):
    return Task(number, "k", "p", operation, "m", State.RUNNING, due, submitted_at=born, failures=failures)


def taught(bounds, latency=30.0, count=300):
    """Return a schedule that has polled so many tasks, which all took this long."""
    schedule = PollSchedule(bounds, BEGAN)
    for number in range(count):
        schedule.record_running(task(number), BEGAN + latency - 1)
        schedule.record_end(task(number), BEGAN + latency + 1)
    return schedule


def gap(schedule, age, urgency=LOW):
    """Return seconds to the poll after one at this age."""
    one = task(7, due=BEGAN)
    return schedule.planner(BEGAN + age, urgency)(one) - BEGAN - age


def test_the_first_poll_waits_until_it_is_useful():
    schedule = taught(BATCH)
    assert 27 < schedule.first_delay("image", "m", LOW) <= 30
    assert schedule.first_delay("video", "m", LOW) < 16, "an unknown model has a guess"
    assert PollSchedule(PollBounds(first=20.0, longest=15.0), BEGAN).first_delay("image", "m", LOW) == 20.0


def test_polls_are_close_where_tasks_end_and_rare_elsewhere():
    schedule = taught(BATCH)
    assert gap(schedule, 0.5) == pytest.approx(15.0, rel=0.1), "half the median at most"
    assert gap(schedule, 29.0) < 3
    assert gap(schedule, 0.5, HIGH) == pytest.approx(30 / 16, rel=0.1)
    assert gap(schedule, 6000.0) == 30.0, "the provider's longest"
    assert gap(schedule, 600.0, HIGH) == 600.0 / 80, "what is long overdue is not asked about all the time"


def test_no_poll_is_sooner_than_the_bounds_allow():
    assert gap(taught(BATCH, latency=2.0), 2.0, HIGH) == pytest.approx(1.0)
    long = PollSchedule(BATCH, BEGAN)
    for number in range(300):
        long.record_end(task(number), BEGAN + 400)
    assert gap(long, 199.0, HIGH) == pytest.approx(0.03 * 200, rel=0.1)
    assert gap(taught(PollBounds(first=0.1), latency=0.5), 0.5, HIGH) == pytest.approx(0.1)


def test_a_shared_limit_makes_polls_rarer():
    ages = range(5, 30, 5)
    shared, apart = taught(replace(BATCH, shared=True)), taught(BATCH)
    assert all(gap(shared, age) >= gap(apart, age) for age in ages)
    assert shared.first_delay("image", "m", LOW) > apart.first_delay("image", "m", LOW)


def test_a_call_goes_out_when_full_or_its_oldest_poll_lingered():
    schedule = PollSchedule(BATCH, BEGAN)
    assert schedule.next_call_at(50.0, None, LOW) == 52.0
    assert schedule.next_call_at(50.0, 51.5, LOW) == 51.5
    assert schedule.next_call_at(50.0, 90.0, LOW) == 52.0
    assert schedule.next_call_at(50.0, None, HIGH) == 50.2
    assert PollSchedule(SINGLE, BEGAN).next_call_at(50.0, 70.0, LOW) == 50.0, "one id fills a call"


def test_free_places_of_a_call_go_to_tasks_due_next():
    schedule, now = taught(BATCH), BEGAN + 20
    plan = schedule.planner(now, LOW)
    assert plan(task(1, due=now - 1)) > now
    assert plan(task(2, due=now + 5)) > now, "not due, but there is a place"
    schedule.record_running(task(3), now - 0.5)
    assert plan(task(3, due=now + 5)) is None, "the last poll was just now"
    assert plan(task(4, due=now + 5, failures=1)) is None, "trouble has its own wait"
    assert plan(task(4, due=now - 5, failures=1)) > now


def test_urgency_is_high_in_a_full_window_and_at_the_end():
    schedule = PollSchedule(BATCH, BEGAN)
    assert schedule.urgency(queued=True, many=True, running=95, window=100) is HIGH
    assert schedule.urgency(queued=True, many=True, running=80, window=100) is LOW
    assert schedule.urgency(queued=True, many=False, running=3, window=None) is LOW
    assert schedule.urgency(queued=False, many=False, running=3, window=None) is HIGH


def test_polls_come_sooner_when_nothing_is_left_to_submit():
    assert PollSchedule(BATCH, BEGAN).urgency(queued=False, many=True, running=3000, window=None) is MEDIUM
    assert PollSchedule(SINGLE, BEGAN).urgency(queued=False, many=True, running=3000, window=None) is LOW
    schedule = taught(BATCH)
    assert gap(schedule, 0.5, MEDIUM) == pytest.approx(30 / 6, rel=0.1)
    assert gap(schedule, 29.0, HIGH) <= gap(schedule, 29.0, MEDIUM) <= gap(schedule, 29.0)
    assert schedule.next_call_at(50.0, None, MEDIUM) == 51.0


def test_tasks_submitted_together_are_known_soon_after_ending():
    """A thousand tasks in three seconds, in virtual time: nothing can be learned from tasks that were sent before."""
    (case,) = (each for each in CASES if each.even)
    world = World(case, case.latencies())
    assert world.play() / bound(case, case.latencies()) < case.goal
    assert world.calls / case.tasks < 0.15
    assert max(world.delays) < 5.0


def test_the_last_few_tasks_are_polled_sooner_than_planned():
    schedule = taught(BATCH)
    never, seen = task(1, due=BEGAN + 31), task(2, due=BEGAN + 40)
    schedule.record_running(seen, BEGAN + 29.5)
    at = schedule.next_call_at(BEGAN + 31, None, HIGH, few=[never, seen])
    assert BEGAN + 25 < at < BEGAN + 31
    late = schedule.next_call_at(BEGAN + 31, None, HIGH, few=[replace(never, failures=2), replace(seen, failures=1)])
    assert late == BEGAN + 31, "what the server asked for is kept"
    assert all(schedule.planner(at, HIGH)(one) for one in (never,))


def test_a_hastened_task_may_be_polled():
    """One arithmetic for both, to the last bit: a call that asks about nobody would be made again and again."""
    for median in (30.0, 100.1, 333.3):
        schedule = taught(BATCH, latency=median)
        for step in range(200):
            seen = task(1, due=BEGAN + 1e6)
            schedule.record_running(seen, BEGAN + 0.37 * step)
            at = schedule.next_call_at(BEGAN + 1e6, None, HIGH, few=[seen])
            assert schedule.planner(at, HIGH)(seen) is not None


def test_tasks_of_earlier_runs_teach_nothing():
    schedule = PollSchedule(BATCH, BEGAN)
    before = gap(schedule, 10.0)
    for number in range(200):
        schedule.record_end(task(number, born=BEGAN - 5000), BEGAN + 1)
    assert gap(schedule, 10.0) == before
    schedule.record_running(task(1, born=BEGAN - 5000), BEGAN + 1)
    schedule.record_end(task(1, born=BEGAN - 5000), BEGAN + 9)
    assert "1 seen" not in repr(schedule)


def test_a_bounded_number_of_tasks_is_remembered(monkeypatch):
    monkeypatch.setattr("runner.scheduler.poll_schedule._REMEMBERED", 3)
    schedule = PollSchedule(BATCH, BEGAN)
    for number in range(10):
        schedule.record_running(task(number), BEGAN + number)
    assert repr(schedule).endswith("3 seen)")
    assert schedule.planner(BEGAN + 9.5, LOW)(task(9, due=BEGAN + 20)) is None
    assert schedule.planner(BEGAN + 9.5, LOW)(task(1, due=BEGAN + 20)) is not None
