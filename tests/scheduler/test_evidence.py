"""What one reading of a list proves about a task that it does not show: each rule of the evidence, and its lie."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.providers.responses import ListedTask
from runner.scheduler.clock import Clock
from runner.scheduler.evidence import MissedReading, OwnRows, judge_absence
from runner.scheduler.list_facts import ListFacts
from runner.scheduler.listing import Reading
from runner.tasks.list_record import ListRecord, Witness
from runner.tasks.models import Moment

#: the quiet time, the wall clock at second 0 of the boot, and when the doubtful request was sent
D, EPOCH, SENT = 100.0, 1_800_000_000.0, 1000.0


def witness(number: int, at: float) -> Witness:
    """Return a task of ours that was accepted within the second before `at`."""
    return Witness(f"id{number}", f"r{number}", "m", EPOCH + at - 1, EPOCH + at, Moment("b", at), exact=True)


def world(*accepted: float, shown=None, at: float = SENT + D + 5, marks=True, created=True, lag=3, to_end=True):
    """Return the own rows of a reading at `at`. Of our tasks, numbered in order, `shown` is in it, newest first."""
    facts = ListFacts("image", D)
    known = [witness(number, when) for number, when in enumerate(accepted)]
    facts.load(known)
    facts.lag.samples, facts.lag.longest = lag, 2.0
    shown = range(len(known)) if shown is None else shown
    rows = tuple(
        ListedTask(f"id{number}", None, EPOCH + accepted[number] if created else 0.0, None, {})
        for number in sorted(shown, reverse=True)
    )
    reading = Reading(rows, Moment("b", at), to_end)
    facts.observe(reading)
    return OwnRows(reading, facts, {row.remote_id: marks for row in rows}, 0.0)


def judge(own: OwnRows, *, final: bool = True, **options) -> str:
    return judge_absence(own, sent_at=EPOCH + SENT, quiet_since=SENT + D, final=final, **options).verdict


BEFORE, AFTER = (800.0, 850.0), (1050.0,)


def shift(*errors: float, boot: str = "b") -> float | None:
    """Return the time shift of a list whose own rows are dated so many seconds after their answers."""
    facts = ListFacts("image", D)
    known = [replace(witness(n, 100.0 * n), answered=Moment(boot, 100.0 * n)) for n in range(len(errors))]
    facts.restore(
        ListRecord(tuple(known)),
        Clock(wall=lambda: EPOCH + 900.0, monotonic=lambda: 0.0, boottime=lambda: 900.0, boot="b"),
    )
    rows = tuple(
        ListedTask(each.remote_id, None, each.answered_at + error, None, {})
        for each, error in zip(known, errors, strict=True)
    )
    return facts.time_shift(Reading(rows, Moment("b", 900.0)))


def test_late_row_of_a_doubt_makes_the_quiet_time_longer():
    facts = ListFacts("image", D)
    facts.saw_late(D / 8)
    assert facts.quiet_time == D
    facts.saw_late(2 * D)
    assert facts.quiet_time == 8 * D


def test_own_rows_tell_the_zone_of_a_list():
    assert shift(0.0, -0.5, 3.0) == 0.0
    assert shift() == 0.0
    assert shift(-28_800.0, -28_798.0) == pytest.approx(-28_799.0, abs=2)
    assert shift(28_800.0) == 28_800.0


def test_times_that_agree_with_no_clock_mean_nothing():
    assert shift(0.0, -28_800.0) is None
    assert shift(-28_800.0, boot="an earlier one") is None


def test_witness_after_the_quiet_time_proves_absence():
    own = world(*BEFORE, SENT + D + 3)
    assert judge(own, final=False) == "proved"
    assert (
        "id2, accepted 2 s after the quiet time"
        in judge_absence(own, sent_at=EPOCH + SENT, quiet_since=SENT + D, final=False).why
    )


def test_witness_between_send_and_quiet_time_is_not_enough():
    """The request may arrive after the witness and still lie behind what the list shows (the model pays twice)."""
    assert judge(world(*BEFORE, *AFTER), final=False) == "unwitnessed"


def test_witness_that_was_sent_before_the_quiet_time_ended_is_not_enough():
    """Its answer came later, but it may have been accepted before."""
    assert judge(world(*BEFORE, SENT + D + 0.5), final=False) == "unwitnessed"


def test_measured_lag_proves_absence_only_at_the_end():
    own = world(*BEFORE, *AFTER)
    assert judge(own) == "proved"
    assert judge(own, final=False) == "unwitnessed"


def test_unknown_lag_proves_nothing():
    assert judge(world(*BEFORE, *AFTER, lag=2)) == "unwitnessed"


@pytest.mark.parametrize("order", [1, 0], ids=["oldest first", "none"])
def test_only_a_list_newest_first_proves_absence_by_its_lag(order):
    """A full list that keeps the oldest rows looks the same for ever."""
    own = world(*BEFORE, *AFTER)
    rows = own.reading.rows[::-1] if order else (own.reading.rows[1], own.reading.rows[0], own.reading.rows[2])
    other = OwnRows(replace(own.reading, rows=rows), own.facts, {row.remote_id: True for row in rows}, 0.0)
    assert judge(other) == "unwitnessed"


def test_own_rows_without_their_reference_contradict():
    assert judge(world(*BEFORE, *AFTER, marks=False)) == "contradicted"


def test_unknown_marks_prove_nothing_but_what_is_known_from_elsewhere():
    own = world(*BEFORE, *AFTER, marks=None)
    assert judge(own) == "unwitnessed"
    assert judge(own, recognisable=True) == "proved"


@pytest.mark.parametrize("shown", [(0, 1, 3), (1, 2, 3), (0, 2, 3)], ids=["since", "before", "just before"])
def test_own_task_that_is_left_out_contradicts(shown):
    assert judge(world(*BEFORE, 1002.0, SENT + D + 3, shown=shown)) == "contradicted"


def test_own_task_that_is_left_out_for_less_than_the_quiet_time_is_waited_for():
    assert judge(world(*BEFORE, *AFTER, SENT + D + 3, shown=(0, 1, 3))) == "early"


def test_at_the_end_every_own_task_must_be_shown():
    assert judge(world(*BEFORE, *AFTER, SENT + D - 5, shown=(0, 1, 2))) == "early"


def test_own_task_beyond_what_was_read_is_not_expected():
    own = world(*BEFORE, SENT + D + 3, shown=(1, 2), to_end=False)
    assert judge(own) == "proved"


def test_newest_tasks_may_be_late():
    """A list is a little behind: what came after the newest row that it shows is not missing yet."""
    assert judge(world(*BEFORE, SENT + D + 3, SENT + D + 4, shown=(0, 1, 2))) == "proved"


def test_task_that_never_appears_contradicts():
    late = SENT + D + 1000
    assert judge(world(*BEFORE, *AFTER, shown=(0, 1), at=late)) == "contradicted"


@pytest.mark.parametrize("at", [SENT + D + 5, SENT + D + 1000])
def test_empty_list_proves_nothing(at):
    assert judge(world(*BEFORE, *AFTER, shown=(), at=at)) == "contradicted"


def test_first_purchases_of_an_account_prove_nothing():
    assert judge(world()) == "unwitnessed"


def test_list_that_does_not_reach_back_proves_nothing():
    """Of a list that keeps the newest rows, the row of this task may have been the first to go."""
    assert judge(world(1050.0, SENT + D + 3)) == "unwitnessed"


def test_strangers_row_from_before_the_send_shows_reach():
    own = world(1050.0, SENT + D + 3)
    rows = (*own.reading.rows, ListedTask("other", None, EPOCH + 500.0, None, {}))
    other = OwnRows(replace(own.reading, rows=rows), own.facts, {"id0": True, "id1": True}, 0.0)
    assert judge(other) == "proved"


def test_times_that_do_not_fit_our_own_sends_show_no_reach():
    own = world(1050.0, SENT + D + 3)
    rows = tuple(replace(row, created=row.created - 7200) for row in own.reading.rows)
    other = OwnRows(replace(own.reading, rows=rows), own.facts, {"id0": True, "id1": True}, 0.0)
    assert judge(other) == "unwitnessed"


def test_count_of_rows_shows_reach():
    """A reading of one row missed it, and the list can show two: so nothing was cut off then."""
    own = world(1050.0, SENT + D + 3)
    assert judge(own, missed=MissedReading(1, "id0")) == "proved"
    assert judge(own, missed=MissedReading(2, "id0")) == "unwitnessed", "no more rows were ever seen"
    assert judge(own, missed=MissedReading(1, "gone")) == "unwitnessed", "nothing ties the two readings together"


def test_incomplete_reading_is_not_remembered():
    assert world(*BEFORE, *AFTER).miss(EPOCH + SENT) == MissedReading(3, "id2")
    assert world(*BEFORE, *AFTER, shown=(0, 1)).miss(EPOCH + SENT) is None
    assert world(*BEFORE, *AFTER, shown=()).miss(EPOCH + SENT) is None


def test_tasks_of_earlier_runs_are_put_in_order():
    facts = ListFacts("image", D)
    facts.load([witness(1, 900.0)])
    facts.load([witness(0, 800.0), witness(2, 1000.0)])
    assert [each.remote_id for each in facts] == ["id0", "id1", "id2"]


# lag


def observed(*readings: tuple[float, tuple[int, ...]]) -> ListFacts:
    """Return what readings (when, and which of four tasks accepted at 0, 10, 20 and 30 s they show) teach."""
    facts = ListFacts("image", D)
    for number in range(4):
        facts.add(witness(number, number * 10.0))
    for at, shown in readings:
        facts.observe(Reading(tuple(ListedTask(f"id{n}", None, 0.0, None, {}) for n in shown), Moment("b", at)))
    return facts


def test_lag_is_measured_on_own_tasks():
    facts = observed((31.0, (0, 1, 2, 3)))
    assert (facts.lag.samples, facts.lag.longest) == (3, 21.0), "the first was too old to tell"
    assert facts.quiet_time == D


def inherited(at: float, shown: tuple[int, ...], **other) -> float:
    """Return the longest lag after one reading of a new process, for which tasks were accepted at 0, 10, 20 and 30."""
    facts = ListFacts("image", D)
    facts.load(replace(witness(n, n * 10.0), exact=False, **other) for n in range(4))
    facts.observe(Reading(tuple(ListedTask(f"id{n}", None, 0.0, None, {}) for n in shown), Moment("b", at)))
    return facts.lag.longest


def test_tasks_of_a_killed_process_show_that_a_list_is_late():
    assert inherited(80.0, ()) == 80.0
    assert inherited(80.0, (0, 1)) == 60.0
    assert inherited(40.0, (0, 1)) == 0.0, "not late yet"
    assert inherited(1000.0, ()) == 0.0, "they are left out, not late"
    assert inherited(80.0, (0, 1), adopted=True) == 0.0


def test_tasks_of_an_earlier_boot_show_that_a_list_is_late():
    facts = ListFacts("image", D)
    facts.load([replace(witness(0, 0.0), exact=False, answered=Moment("earlier", 0.0))])
    for at, lag in ((40.0, 0.0), (60.0, 0.0), (110.0, 70.0), (2000.0, 70.0)):
        facts.observe(Reading((), Moment("b", at)))
        assert facts.lag.longest == lag


def test_a_short_page_does_not_make_a_list_late():
    assert inherited(80.0, (2, 3)) == 0.0


def test_slow_list_lengthens_the_quiet_time():
    facts = observed((31.0, (0,)), (50.0, (0, 1, 2, 3)))
    assert (facts.lag.samples, facts.lag.longest) == (3, 40.0)
    assert facts.quiet_time == 160.0
    assert observed((290.0, ())).quiet_time == 1160.0
    assert observed((5000.0, ())).quiet_time == D, "they are left out, not late"


def test_slow_list_that_nobody_read_for_long_may_be_as_late_as_that():
    """It lacked the last task after 40 s; two minutes later it shows all of them. So much it may be late."""
    facts = observed((70.0, (0,)), (190.0, (0, 1, 2, 3)))
    assert facts.lag.longest == 60.0, "four times as long covers the time between"
    facts = observed((60.0, ()), (500.0, (0, 1, 2, 3)))
    assert facts.lag.longest == 500.0


def test_long_pause_between_readings_measures_nothing():
    facts = observed((31.0, (0,)), (900.0, (0, 1, 2, 3)))
    assert (facts.lag.samples, facts.lag.longest) == (0, 21.0)


def test_task_that_is_passed_over_is_not_late():
    assert observed((1000.0, (3,))).lag.longest == 0.0
