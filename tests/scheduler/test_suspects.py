"""Whether one reading lets a refusal be believed: each thing that it may show, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.scheduler.evidence import Absence
from runner.scheduler.suspects import SuspectView, early_suspects, judge_suspect, proof_after
from runner.tasks.events import Missing
from runner.tasks.models import SUSPECTED, Moment, State, Task
from tests.scheduler.test_evidence import BEFORE, D, world

SENT = 1000.0
#: nothing more can be bought, and the quiet time has passed
LATE = SuspectView("unknown", D + 1, D, 8.0, 4.0, is_open=False)
PROVED = Absence("proved", "shown", by_witness=True)
UNSEEN = Absence("unwitnessed", "no later task")


@pytest.mark.parametrize(
    ("found", "view", "event"),
    [
        (PROVED, replace(LATE, waited=5.0, is_open=True), Missing(quiet=True, why="shown")),
        (PROVED, replace(LATE, waited=3.0, is_open=True), Missing(quiet=False, why="shown")),
        (replace(PROVED, by_witness=False), LATE, Missing(quiet=True, refundable=False, why="shown")),
        (Absence("early", "late"), LATE, Missing(quiet=False, why="late")),
        (UNSEEN, replace(LATE, is_open=True), Missing(quiet=False, why="no later task")),
        (UNSEEN, replace(LATE, waited=9.0), Missing(quiet=False, witnessed=False, why="no later task")),
        (UNSEEN, LATE, Missing(quiet=True, refundable=False, why="refused, and not found: no later task")),
        (UNSEEN, replace(LATE, witnessed_only=True), Missing(quiet=True, witnessed=False, why="no later task")),
        (UNSEEN, replace(LATE, code="charges"), Missing(quiet=True, witnessed=False, why="no later task")),
        (Absence("contradicted", "holes"), LATE, Missing(quiet=True, provable=False, why="holes")),
        (
            Absence("contradicted", "holes"),
            replace(LATE, waited=1.0),
            Missing(quiet=False, provable=False, why="holes"),
        ),
    ],
    ids=[
        "later tasks",
        "later tasks, too soon",
        "lag alone",
        "list behind",
        "others go on",
        "before the quiet time",
        "two statements agree",
        "only with a witness",
        "code that has charged",
        "list that leaves tasks out",
        "the same, before the quiet time",
    ],
)
def test_verdict_of_a_reading(found, view, event):
    assert judge_suspect(found, view) == event


@pytest.mark.parametrize(("bound", "rests"), [(8.0, False), (D, True)])
def test_blocked_run_does_not_wait_for_long(bound, rests):
    """Out of credit on an account whose lag is unknown: the next run looks again."""
    view = replace(LATE, waited=1.0, lag_bound=bound, is_blocked=True)
    assert judge_suspect(UNSEEN, view) == Missing(quiet=rests, witnessed=False, why="no later task")


def test_two_later_tasks_prove_after_four_times_their_age():
    own = world(*BEFORE, SENT + 2, SENT + 5, at=SENT + 8)
    assert proof_after(own, SENT) == 12.0
    assert proof_after(world(*BEFORE, SENT + 2, SENT + 7.9, at=SENT + 8), SENT) == 4.0, "never sooner"


def test_one_later_task_or_a_slow_list_needs_more():
    """A list that shows tasks in no order could have been lucky with one."""
    own = world(*BEFORE, SENT + 5, at=SENT + 8)
    assert proof_after(own, SENT) == own.facts.lag_bound
    slow = world(*BEFORE, SENT + 2, SENT + 5, at=SENT + 8)
    slow.facts.lag.longest = D
    assert proof_after(slow, SENT) == slow.facts.quiet_time == 400.0


class Clock:
    boot = "b"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def moment(self) -> Moment:
        return Moment(self.boot, self._seconds)

    def since(self, boot: str, seconds: float, until: Moment) -> float:
        return until.seconds - seconds


@pytest.mark.parametrize(
    ("accepted", "at", "early"),
    [
        (BEFORE, SENT + 50, True),
        (BEFORE, SENT + D, False),
        ((*BEFORE, SENT + 3), SENT + 50, True),
        ((*BEFORE, SENT + 2, SENT + 3), SENT + 3.5, True),
        ((*BEFORE, SENT + 2, SENT + 3), SENT + 4, False),
    ],
    ids=["nothing followed", "quiet time over", "one followed", "two followed, too soon", "two followed"],
)
def test_suspect_is_looked_for_when_a_reading_can_clear_it(accepted, at, early):
    task = Task(1, "k", "kling", "image", "m", State.IN_DOUBT, 0.0, sent=Moment("b", SENT), reason=f"{SUSPECTED}1302")
    doubt = replace(task, id=2, reason="no answer")
    facts = world(*accepted, at=at).facts
    assert early_suspects([task, doubt], facts, Clock(at), {}) == ([task] if early else [])


@pytest.mark.parametrize(
    ("accepted", "missed_at", "early"),
    [
        (BEFORE, SENT + D, True),
        (BEFORE, None, False),
        ((*BEFORE, SENT + D + 1), SENT + D, False),
        ((*BEFORE, SENT + 2, SENT + 3), SENT + D, False),
        (BEFORE, SENT - 1, False),
    ],
    ids=["nothing new", "not looked for yet", "one more accepted", "two followed", "an earlier doubt of it"],
)
def test_suspect_is_not_looked_for_again_until_something_can_tell(accepted, missed_at, early):
    """Submits that a provider slows down for minutes need no reading every half minute."""
    task = Task(1, "k", "kling", "image", "m", State.IN_DOUBT, 0.0, sent=Moment("b", SENT), reason=f"{SUSPECTED}1302")
    at, missed = SENT + 2 * D, {} if missed_at is None else {1: missed_at}
    assert early_suspects([task], world(*accepted, at=at).facts, Clock(at), missed) == ([task] if early else [])
