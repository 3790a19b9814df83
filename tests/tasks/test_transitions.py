from __future__ import annotations

import dataclasses
import graphlib
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.tasks.events import (
    Accepted,
    AccountBlocked,
    Claimed,
    Event,
    Finished,
    Found,
    Interrupted,
    Linked,
    LinkExpired,
    Missing,
    Pending,
    Rejected,
    Resolved,
    Retried,
    RetryableFailure,
    Saved,
    Suspected,
)
from runner.tasks.models import NO_ERROR, Moment, Output, State, Task, TaskError, reference
from runner.tasks.retry_policy import RetryPolicy, reconcile_interval, suspect_interval
from runner.tasks.transitions import EVENT_COSTS, TRANSITIONS, IllegalTransitionError, advance, is_linked

NOW = 1_790_000_000.0
TROUBLE = TaskError("trouble", "5000", "the other side is tired")
RISK = TaskError("moderation", "1301", "risk")
LINKS = (Output(1, "https://files.example/1.png"), Output(2, "https://files.example/2.png"))
PAID = {State.RUNNING, State.READY, State.DONE, State.STRANDED}
ENDED = {State.FAILED, State.STRANDED}
NOT_DUE = {State.SUBMITTING, State.HELD, State.DONE, State.FAILED, State.STRANDED}
POLICY = RetryPolicy()

#: one event of each kind, and its notable variants
EVENTS: tuple[Event, ...] = (
    Claimed(Moment("boot-a", 12.5), NOW),
    Accepted("u-1", "http 200"),
    Interrupted("no answer within 60 s"),
    Interrupted("accepted under an id that is none", hopeless=True),
    Found("u-1", "found in the list"),
    Missing(quiet=False),
    Missing(quiet=True),
    Missing(quiet=True, provable=False),
    Missing(quiet=True, refundable=False),
    Suspected(TaskError("throttled", "1302", "too fast")),
    Pending("Generating"),
    Pending("Success", settling=True),
    Finished(LINKS),
    LinkExpired(TaskError("expired", "403", None)),
    Saved(LINKS),
    RetryableFailure("trouble", TROUBLE),
    RetryableFailure("throttled", TROUBLE, 30.0),
    RetryableFailure("unsent", TROUBLE),
    Rejected(RISK),
    Rejected(RISK, maybe_taken=True),
    AccountBlocked("credit", TROUBLE),
    Linked("u-7", "/jobs/spring", LINKS),
    Linked("u-7", "/jobs/spring"),
    Retried(),
    Retried(anew=True),
    Resolved("absent", "ann"),
    Resolved("adopt", "ann", "u-9"),
    Resolved("abandon", "ann"),
)


def make_task(state: State, **fields) -> Task:
    """Return a task in that state, on its first purchase."""
    key = "ab" * 16
    task = Task(7, key, "kling", "image", "kling-v3", state, due_at=None if state in NOT_DUE else NOW)
    task = replace(task, ref=reference("0123456789abcdef", key, 1), since=NOW)
    if state is not State.QUEUED:
        task = replace(task, sent=Moment("boot-a", 12.5), submitted_at=NOW)
    if state in PAID:
        task = replace(task, remote_id="u-1")
    return replace(task, **fields)


def late_fields(state: State, event: type[Event]) -> dict:
    """Return the fields of a task that takes late outputs: it was accepted and timed out."""
    return {"remote_id": "u-1", "error": TaskError("stuck")} if event is Finished and state in ENDED else {}


def possible(task: Task) -> list[type[Event]]:
    """Return the events that can happen to a task. Late outputs come only for some failed and stranded tasks."""
    is_lost = task.state in ENDED and (task.remote_id is None or task.error.reason not in {"stuck", "moderation"})
    return [kind for kind in TRANSITIONS[task.state] if not (kind is Finished and is_lost)]


def after(state: State, event: Event, *, now: float = NOW, policy: RetryPolicy = POLICY, **fields) -> Task:
    return advance(make_task(state, **fields), event, now, policy)


# the table as a whole


def test_table_covers_every_state_and_event():
    assert set(TRANSITIONS) == set(State)
    known = {event for events in TRANSITIONS.values() for event in events}
    assert known == set(get_args(Event)) == {type(event) for event in EVENTS}
    assert set(EVENT_COSTS) <= known


def test_no_cycle_without_counted_events():
    graph = {
        state: {target for event, targets in events.items() if event not in EVENT_COSTS for target in targets}
        for state, events in TRANSITIONS.items()
    }
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("counted", EVENT_COSTS)
def test_every_counted_event_is_part_of_a_cycle(counted):
    """With any one of them allowed, the table has a cycle, so none is in the list in vain."""
    graph = {
        state: {
            target
            for event, targets in events.items()
            if event is counted or event not in EVENT_COSTS
            for target in targets
        }
        for state, events in TRANSITIONS.items()
    }
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(graph).prepare()


OUTSIDE = [(state, event) for state in State for event in EVENTS if type(event) not in TRANSITIONS[state]]


@pytest.mark.parametrize(("state", "event"), OUTSIDE, ids=lambda value: str(value)[:40])
def test_event_outside_the_table_raises(state, event):
    with pytest.raises(IllegalTransitionError, match=state):
        after(state, event)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", EVENTS, ids=lambda value: str(value)[:40])
def test_every_decision_is_in_the_table(state, event):
    targets = TRANSITIONS[state].get(type(event))
    if targets:
        assert after(state, event, **late_fields(state, type(event))).state in targets


@pytest.mark.parametrize("event", EVENTS, ids=lambda value: str(value)[:40])
def test_done_and_failed_ignore_other_events(event):
    """A done task stays done. A failed one changes only if the user retries it or its outputs appear after all."""
    if isinstance(event, Retried):
        assert after(State.DONE, event).state is State.RUNNING, "`verify` downloads missing files, and buys nothing"
        return
    for state in (State.DONE, State.FAILED):
        with pytest.raises(IllegalTransitionError):
            after(state, event)


def test_late_outputs_revive_a_failed_task():
    """Outputs that appear after all end a failure, if the task was accepted and not abandoned."""
    found = after(State.FAILED, Finished(LINKS), remote_id="u-1", error=RISK, due_at=None)
    assert (found.state, found.outputs, found.due_at, found.since) == (State.READY, LINKS, NOW, NOW)
    assert (found.error, found.remote_id) == (NO_ERROR, "u-1")
    with pytest.raises(IllegalTransitionError):
        after(State.FAILED, Finished(LINKS), remote_id="u-1", error=TaskError("abandoned"))


def test_late_outputs_revive_a_stuck_task_only():
    """A stranded task takes late outputs if it timed out, not if its links had expired."""
    assert after(State.STRANDED, Finished(LINKS), error=TaskError("stuck")).state is State.READY
    with pytest.raises(IllegalTransitionError):
        after(State.STRANDED, Finished(LINKS), error=TaskError("link_expired"))


# the submit


def test_claimed_task_is_submitting():
    task = after(State.QUEUED, Claimed(Moment("boot-b", 99.0), NOW + 1))
    assert (task.state, task.due_at) == (State.SUBMITTING, None)
    assert (task.sent, task.submitted_at, task.since) == (Moment("boot-b", 99.0), NOW + 1, NOW + 1)


def test_accepted_task_is_polled_after_the_first_delay():
    task = after(State.SUBMITTING, Accepted("u-5", "http 200"), policy=RetryPolicy(first_poll=4.0), failures=3)
    assert (task.state, task.remote_id, task.due_at) == (State.RUNNING, "u-5", NOW + 4.0)
    assert (task.adopted, task.failures, task.error, task.reason) == (False, 0, NO_ERROR, "http 200")


def test_interrupted_submit_is_reconciled_at_once():
    task = after(State.SUBMITTING, Interrupted("cut off"), doubts=1, absences=5)
    assert (task.state, task.due_at, task.doubts, task.absences) == (State.IN_DOUBT, NOW, 2, 0)
    assert task.error == TaskError("in_doubt", None, "cut off")
    assert task.sent is not None


def test_interrupted_submit_is_held_without_reconcile():
    task = after(State.SUBMITTING, Interrupted("cut off"), policy=RetryPolicy(can_reconcile=False))
    assert (task.state, task.due_at, task.doubts) == (State.HELD, None, 1)


def test_unusable_id_is_held_even_with_a_list():
    """A task that was accepted under an unusable id is held, although the provider has a list."""
    task = after(State.SUBMITTING, Interrupted("an id that is none", hopeless=True))
    assert (task.state, task.due_at, task.doubts) == (State.HELD, None, 1)


def test_rejection_fails_the_task():
    task = after(State.SUBMITTING, Rejected(RISK))
    assert (task.state, task.due_at, task.error, task.finished_at) == (State.FAILED, None, RISK, NOW)


@pytest.mark.parametrize(("doubts", "state"), [(0, State.FAILED), (1, State.IN_DOUBT), (2, State.IN_DOUBT)])
def test_rejection_of_a_known_reference_keeps_the_doubt(doubts, state):
    """A rejection that may mean "the reference exists" does not settle an earlier doubt."""
    assert after(State.SUBMITTING, Rejected(RISK, maybe_taken=True), doubts=doubts).state is state
    assert after(State.SUBMITTING, Rejected(RISK), doubts=doubts).state is State.FAILED


def test_rejection_of_a_known_reference_is_held():
    """Without a way to reconcile, such a rejection is held."""
    task = after(State.SUBMITTING, Rejected(RISK, maybe_taken=True), doubts=1, policy=RetryPolicy(can_reconcile=False))
    assert task.state is State.HELD


@pytest.mark.parametrize("kind", ["throttled", "window", "unsent"])
def test_unaccepted_submit_waits_and_costs_no_attempt(kind):
    """A submit that was certainly not accepted waits as long as the server asks, and costs no attempt."""
    task = after(State.SUBMITTING, RetryableFailure(kind, TROUBLE, 30.0))
    assert (task.state, task.due_at, task.sent) == (State.QUEUED, NOW + 30.0, None)
    assert (task.attempts, task.throttles) == (0, 1)


@pytest.mark.parametrize("kind", ["throttled", "unsent"])
def test_throttled_submit_is_due_at_once(kind):
    """The limiter waits for the rate and the network, so that the task itself need not."""
    assert after(State.SUBMITTING, RetryableFailure(kind, TROUBLE), throttles=9).due_at == NOW


def test_full_window_backs_off():
    full = [
        after(State.SUBMITTING, RetryableFailure("window", TROUBLE), throttles=n).due_at - NOW for n in (0, 1, 2, 50)
    ]
    assert full == [1.0, 2.0, 4.0, 60.0]


def test_trouble_costs_attempts_and_backs_off():
    due = [
        after(State.SUBMITTING, RetryableFailure("trouble", TROUBLE), attempts=n, policy=RetryPolicy(max_attempts=9))
        for n in range(4)
    ]
    assert [task.due_at - NOW for task in due] == [1.0, 2.0, 4.0, 8.0]
    assert [task.attempts for task in due] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("event", "field", "last"),
    [(RetryableFailure("trouble", TROUBLE), "attempts", 3), (RetryableFailure("throttled", TROUBLE), "throttles", 999)],
)
def test_repeated_rejections_fail_the_task_in_the_end(event, field, last):
    assert after(State.SUBMITTING, event, **{field: last - 1}).state is State.QUEUED
    task = after(State.SUBMITTING, event, **{field: last})
    assert (task.state, task.error, getattr(task, field)) == (State.FAILED, TROUBLE, last + 1)


def test_blocked_account_costs_the_task_nothing():
    task = after(State.SUBMITTING, AccountBlocked("credit", TROUBLE), attempts=2, throttles=3)
    assert (task.state, task.due_at, task.sent, task.error) == (State.QUEUED, NOW, None, TROUBLE)
    assert (task.attempts, task.throttles) == (2, 3)


# tasks in doubt


def test_found_task_is_polled_at_once():
    task = after(State.IN_DOUBT, Found("u-3", "found by reference"), absences=1, failures=4, doubts=2)
    assert (task.state, task.remote_id, task.due_at, task.adopted) == (State.RUNNING, "u-3", NOW, True)
    assert (task.absences, task.failures, task.doubts) == (0, 0, 2)


@pytest.mark.parametrize("absences", [0, 1, 7])
def test_absence_before_the_quiet_time_proves_nothing(absences):
    task = after(State.IN_DOUBT, Missing(quiet=False), absences=absences)
    assert (task.state, task.absences, task.due_at) == (State.IN_DOUBT, absences + 1, NOW + reconcile_interval(POLICY))


def test_absence_needs_two_quiet_reconciles():
    """The second reconcile follows a quarter of the quiet time after the first."""
    first = after(State.IN_DOUBT, Missing(quiet=True), policy=RetryPolicy(quiet_time=300))
    assert (first.state, first.absences, first.due_at) == (State.IN_DOUBT, 1, NOW + 75)
    second = advance(first, Missing(quiet=True), NOW + 75, RetryPolicy(quiet_time=300))
    assert (second.state, second.due_at, second.absences, second.reason) == (State.QUEUED, NOW + 75, 0, "absent")
    assert second.error == NO_ERROR


def test_absence_keeps_reference_and_doubts():
    before = make_task(State.IN_DOUBT, absences=1, doubts=2)
    task = advance(before, Missing(quiet=True), NOW, POLICY)
    assert (task.state, task.ref, task.generation, task.doubts) == (State.QUEUED, before.ref, 1, 2)


@pytest.mark.parametrize(("doubts", "state"), [(1, State.QUEUED), (2, State.QUEUED), (3, State.HELD), (4, State.HELD)])
def test_three_unclear_submits_are_held(doubts, state):
    assert after(State.IN_DOUBT, Missing(quiet=True), absences=1, doubts=doubts).state is state


def test_unprovable_absence_is_held_after_the_quiet_time():
    """An absence that proves nothing is held, but only when a provable one would have been believed."""
    unproved = Missing(quiet=True, provable=False)
    assert after(State.IN_DOUBT, unproved, absences=0, doubts=1).state is State.IN_DOUBT
    assert after(State.IN_DOUBT, Missing(quiet=False, provable=False), absences=5, doubts=1).state is State.IN_DOUBT
    task = after(State.IN_DOUBT, unproved, absences=1, doubts=1)
    assert (task.state, task.due_at) == (State.HELD, None)
    assert "not known to show" in task.error.message
    contradicted = Missing(quiet=True, provable=False, why="the list leaves out 2 tasks of ours")
    task = after(State.IN_DOUBT, contradicted, absences=1, doubts=1)
    assert task.error.message == "not found, and the list leaves out 2 tasks of ours"


def test_absence_without_a_witness_rests_and_is_held_after_three_days():
    """Only a later purchase can settle it, so it stays in doubt for the next run."""
    event = Missing(quiet=True, witnessed=False, why="no task was accepted since the quiet time")
    assert after(State.IN_DOUBT, event, absences=0, doubts=1).due_at is not None
    task = after(State.IN_DOUBT, event, absences=1, doubts=1, submitted_at=NOW - 3600)
    assert (task.state, task.due_at) == (State.IN_DOUBT, None)
    assert task.error.message == "not found, and no task was accepted since the quiet time"
    task = after(State.IN_DOUBT, event, absences=1, doubts=1, submitted_at=NOW - 3.1 * 86_400)
    assert (task.state, task.due_at) == (State.HELD, None)


def test_proved_absence_says_what_it_rests_on():
    event = Missing(quiet=True, why="absent from a list that shows u-7, accepted after the quiet time")
    task = after(State.IN_DOUBT, event, absences=1, doubts=1)
    assert (task.state, task.reason) == (State.QUEUED, event.why)


def test_failed_reconciles_leave_the_task_to_the_next_run():
    policy = RetryPolicy(max_unclean=3, quiet_time=120)
    task, waits = make_task(State.IN_DOUBT), []
    for _ in range(3):
        task = advance(task, RetryableFailure("trouble", TROUBLE), NOW, policy)
        waits.append(task.due_at and task.due_at - NOW)
    assert (task.state, waits) == (State.IN_DOUBT, [1.0, 2.0, None])


def test_failed_reconcile_counts_as_no_absence():
    """It also waits as long as the server asks."""
    task = after(State.IN_DOUBT, RetryableFailure("throttled", TROUBLE, 45.0), absences=1)
    assert (task.state, task.absences, task.due_at) == (State.IN_DOUBT, 1, NOW + 45.0)


def test_doubt_is_not_due_while_the_account_is_blocked():
    task = after(State.IN_DOUBT, AccountBlocked("credentials", TROUBLE), absences=1)
    assert (task.state, task.due_at, task.absences) == (State.IN_DOUBT, None, 1)


# decisions of an operator


def test_operator_adopts_a_held_task():
    task = after(State.HELD, Resolved("adopt", "ann", "u-9"))
    assert (task.state, task.remote_id, task.due_at, task.adopted) == (State.RUNNING, "u-9", NOW, True)
    assert task.reason == "adopt by ann"


@pytest.mark.parametrize("nothing", [None, ""])
def test_adoption_needs_an_id(nothing):
    with pytest.raises(IllegalTransitionError):
        after(State.HELD, Resolved("adopt", "ann", nothing))


def test_operator_absent_resubmits_and_keeps_the_doubts():
    """`absent` sends the same purchase again under the same reference, and forgets no doubt."""
    before = make_task(State.HELD, doubts=3, absences=2)
    task = advance(before, Resolved("absent", "ann"), NOW, POLICY)
    assert (task.state, task.due_at, task.reason) == (State.QUEUED, NOW, "absent by ann")
    assert (task.generation, task.ref, task.doubts, task.absences) == (1, before.ref, 3, 0)
    sent = advance(task, Claimed(Moment("boot-a", 20.0), NOW), NOW, POLICY)
    rejected = advance(sent, Rejected(RISK, maybe_taken=True), NOW, POLICY)
    assert rejected.state is State.IN_DOUBT, "the reference exists after all: the operator was mistaken"


def test_operator_abandons_a_held_task():
    task = after(State.HELD, Resolved("abandon", "ann"))
    assert (task.state, task.due_at, task.error.reason, task.reason) == (
        State.FAILED,
        None,
        "abandoned",
        "abandon by ann",
    )


def test_retry_of_a_failure_is_a_new_purchase():
    """It has a new reference, and all its counts start again."""
    spent = {
        "remote_id": "u-1",
        "attempts": 4,
        "throttles": 9,
        "doubts": 3,
        "absences": 2,
        "refreshes": 5,
        "adopted": True,
    }
    before = make_task(State.FAILED, error=RISK, failures=2, **spent)
    task = advance(before, Retried(), NOW + 10, POLICY)
    assert (task.state, task.due_at, task.since, task.generation) == (State.QUEUED, NOW + 10, NOW + 10, 2)
    assert task.ref == reference("0123456789abcdef", before.key, 2) != before.ref
    assert (task.remote_id, task.sent, task.error, task.adopted) == (None, None, NO_ERROR, False)
    assert {task.attempts, task.throttles, task.doubts, task.absences, task.refreshes, task.failures} == {0}
    third = advance(replace(task, state=State.FAILED), Retried(), NOW, POLICY)
    assert (third.generation, third.ref) == (3, reference("0123456789abcdef", before.key, 3))


def test_retry_of_a_stranded_task_is_free():
    before = make_task(State.STRANDED, refreshes=8, failures=3, error=TROUBLE)
    task = advance(before, Retried(), NOW + 10, POLICY)
    assert (task.state, task.due_at, task.since) == (State.RUNNING, NOW + 10, NOW + 10)
    assert (task.remote_id, task.generation, task.ref) == (before.remote_id, 1, before.ref)
    assert (task.refreshes, task.failures, task.error) == (0, 0, NO_ERROR)


# paid tasks


def test_pending_changes_nothing():
    """A task that is still running need not be written to the store."""
    before = make_task(State.RUNNING)
    assert advance(before, Pending("Generating"), NOW + 5, POLICY) == before


def test_success_without_outputs_is_stranded():
    """The number of polls that report success without outputs is bounded."""
    task = make_task(State.RUNNING)
    settling = Pending("Success", settling=True)
    for step in range(1, 20):
        task = advance(task, settling, NOW, POLICY)
        assert (task.state, task.failures) == (State.RUNNING, step)
    task = advance(task, settling, NOW, POLICY)
    assert (task.state, task.due_at, task.error.reason) == (State.STRANDED, None, "no_output")


@pytest.mark.parametrize("state", [State.RUNNING, State.READY])
@pytest.mark.parametrize(
    "event",
    [Pending("x"), RetryableFailure("trouble", TROUBLE), AccountBlocked("account", TROUBLE), LinkExpired(TROUBLE)],
    ids=str,
)
def test_paid_task_is_stranded_after_its_time_limit(state, event):
    if type(event) not in TRANSITIONS[state]:
        return
    policy = RetryPolicy(paid_timeout=100.0)
    assert after(state, event, now=NOW + 100.0, policy=policy).state is not State.STRANDED
    task = after(state, event, now=NOW + 100.5, policy=policy)
    assert (task.state, task.due_at, task.remote_id) == (State.STRANDED, None, "u-1")


# purchases of other jobs


def test_linked_task_is_done_and_costs_nothing():
    task = after(State.QUEUED, Linked("u-7", "/jobs/spring", LINKS), cost=4.0)
    assert (task.state, task.remote_id, task.spent, task.submitted_at, task.due_at) == (
        State.DONE,
        "u-7",
        0.0,
        None,
        None,
    )
    assert (task.reason, task.outputs, task.finished_at, is_linked(task)) == (
        "bought in /jobs/spring",
        LINKS,
        NOW,
        True,
    )


def test_linked_task_without_files_is_fetched():
    """It stays linked however often it is fetched again, and a user may buy it at last."""
    task = after(State.QUEUED, Linked("u-7", "/jobs/spring"))
    assert (task.state, task.due_at, task.since) == (State.RUNNING, NOW, NOW)
    for event in (Finished(LINKS), Saved(LINKS), Retried(), Finished(LINKS), Saved(LINKS)):
        task = advance(task, event, NOW, POLICY)
        assert is_linked(task)
        assert task.spent == 0.0
    anew = advance(task, Retried(anew=True), NOW, POLICY)
    assert (anew.state, anew.generation, anew.remote_id, is_linked(anew)) == (State.QUEUED, 2, None, False)


def test_linked_task_that_nobody_has_any_more_is_stranded():
    task = after(State.QUEUED, Linked("u-7", "/jobs/spring"))
    for _ in range(POLICY.max_unknown):
        assert task.state is State.RUNNING
        task = advance(task, RetryableFailure("absent", TROUBLE), NOW, POLICY)
    assert (task.state, task.error.reason) == (State.STRANDED, "gone")
    assert advance(task, Retried(), NOW, POLICY).state is State.RUNNING
    assert advance(task, Retried(anew=True), NOW, POLICY).state is State.QUEUED


def test_own_purchase_is_not_bought_anew():
    assert after(State.DONE, Retried(anew=True)).state is State.RUNNING


@pytest.mark.parametrize("state", [State.RUNNING, State.READY])
def test_failing_paid_task_is_retried_indefinitely(state):
    """However often a paid task is polled or downloaded in vain, it never fails for that."""
    task, waits = make_task(state), []
    for _ in range(40):
        task = advance(task, RetryableFailure("trouble", TROUBLE), NOW, POLICY)
        waits.append(task.due_at - NOW)
    assert (task.state, task.failures) == (state, 40)
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert max(waits) == 60.0
    assert after(state, RetryableFailure("throttled", TROUBLE, 300.0)).due_at == NOW + 300.0


def test_remote_failure_fails_the_task_and_keeps_its_id():
    task = after(State.RUNNING, Rejected(RISK))
    assert (task.state, task.remote_id, task.finished_at) == (State.FAILED, "u-1", NOW)


def test_finished_outputs_are_downloaded_at_once():
    task = after(State.RUNNING, Finished(LINKS), failures=3)
    assert (task.state, task.due_at, task.outputs, task.failures) == (State.READY, NOW, LINKS, 0)
    assert task.finished_at == NOW


def test_expired_link_is_renewed_a_bounded_number_of_times():
    task = make_task(State.READY)
    for step in range(1, 8):
        task = advance(task, LinkExpired(TROUBLE), NOW, POLICY)
        assert (task.state, task.refreshes) == (State.RUNNING, step)
        task = advance(task, Finished(LINKS), NOW, POLICY)
    task = advance(task, LinkExpired(TROUBLE), NOW, POLICY)
    assert (task.state, task.due_at, task.error) == (State.STRANDED, None, TROUBLE)


def test_what_a_run_takes_up_ends_with_the_first_dead_link():
    """Thousands of expired links must not cost each nightly run eight polls; a host that is away may come back."""
    taken_up = advance(make_task(State.STRANDED, refreshes=8), Retried(is_brief=True), NOW, POLICY)
    ready = advance(taken_up, Finished(LINKS), NOW, POLICY)
    assert advance(ready, LinkExpired(TROUBLE), NOW, POLICY).state is State.STRANDED
    assert advance(ready, LinkExpired(TROUBLE, is_dead=False), NOW, POLICY).state is State.RUNNING


def test_host_that_is_away_is_tried_for_as_long_as_patience_lasts():
    """However often it was tried: at growing distances, a quarter of an hour at most."""
    task, now, waits = make_task(State.READY, since=NOW), NOW, []
    while task.state is not State.STRANDED:
        task = advance(task, LinkExpired(TROUBLE, is_dead=False), now, POLICY)
        if task.state is State.RUNNING:
            waits.append(task.due_at - now)
            now = task.due_at
            task = advance(task, Finished(LINKS), now, POLICY)
    assert waits[:8] == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    assert waits[12:] == [900.0] * len(waits[12:])
    assert POLICY.paid_timeout < now - NOW <= POLICY.paid_timeout + 900.0
    assert (task.error, task.due_at) == (TROUBLE, None)


def test_saved_task_is_done_and_reports_missing_outputs():
    task = after(State.READY, Saved(LINKS))
    assert (task.state, task.due_at, task.outputs, task.error) == (State.DONE, None, LINKS, NO_ERROR)
    partial = TaskError("partial", None, "1 of 2")
    assert after(State.READY, Saved(LINKS[:1], partial)).error == partial


# every sequence of events

KINDS = st.sampled_from(["unsent", "throttled", "window", "trouble"])
WAITS = st.none() | st.floats(0.5, 900.0)
IDS = st.sampled_from(["u-1", "900000000000000001", "g-a"])
STRATEGIES = {
    Claimed: st.builds(Claimed, st.just(Moment("boot-a", 1.0)), st.just(NOW)),
    Accepted: st.builds(Accepted, IDS),
    Interrupted: st.builds(Interrupted, st.just("cut off"), st.booleans()),
    Found: st.builds(Found, IDS),
    Missing: st.builds(Missing, st.booleans(), st.booleans(), refundable=st.booleans()),
    Suspected: st.builds(
        Suspected, st.builds(TaskError, st.sampled_from(["throttled", "window", "moderation", "credit"]), st.just("13"))
    ),
    Pending: st.builds(Pending, st.just("x"), st.booleans()),
    Finished: st.just(Finished(LINKS)),
    LinkExpired: st.just(LinkExpired(TROUBLE)),
    Saved: st.just(Saved(LINKS)),
    RetryableFailure: st.builds(RetryableFailure, KINDS, st.just(TROUBLE), WAITS),
    Rejected: st.builds(Rejected, st.just(RISK), st.booleans()),
    AccountBlocked: st.builds(AccountBlocked, st.sampled_from(["credentials", "credit"]), st.just(TROUBLE)),
    Linked: st.builds(Linked, IDS, st.just("/jobs/spring"), st.sampled_from([(), LINKS])),
    Retried: st.builds(Retried, st.booleans(), st.booleans()),
    Resolved: st.builds(Resolved, st.sampled_from(["adopt", "absent", "abandon"]), st.just("ann"), IDS),
}
SHORT = RetryPolicy(
    max_attempts=2,
    max_throttles=4,
    paid_timeout=60.0,
    quiet_time=4.0,
    required_absences=2,
    max_doubts=2,
    max_unclean=3,
    max_settlings=3,
    max_refreshes=3,
)


def sound(task: Task) -> bool:
    """Return True if the row satisfies the invariants: the CHECKs of the store and some more."""
    return (
        (task.state not in PAID or bool(task.remote_id))
        and (task.state not in {State.QUEUED, State.SUBMITTING, State.IN_DOUBT, State.HELD} or task.remote_id is None)
        and (task.state is not State.SUBMITTING or task.sent is not None)
        and (task.state not in NOT_DUE or task.due_at is None)
        and (task.state not in {State.QUEUED, State.READY} or task.due_at is not None)
        and (task.state is not State.HELD or task.doubts > 0)
        and task.ref.endswith(f"-g{task.generation}")
    )


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.data(), st.booleans())
def test_every_sequence_is_sound_and_ends(data, can_reconcile):
    """Without operators and users, every sequence of events ends in a bounded number of steps."""
    policy = replace(SHORT, can_reconcile=can_reconcile)
    task, now, blocks = make_task(State.QUEUED), NOW, 3
    for _ in range(600):
        kinds = [kind for kind in possible(task) if kind not in {Retried, Resolved}]
        if task.state is State.SUBMITTING and not blocks:
            kinds.remove(AccountBlocked)  # a run that is blocked submits nothing more
        if not kinds or (task.state is State.IN_DOUBT and task.due_at is None):
            return
        now = max(now, task.due_at or now) + 1.0
        event = data.draw(STRATEGIES[data.draw(st.sampled_from(kinds))])
        if isinstance(event, Missing) and task.absences > 5:
            event = replace(event, quiet=True)  # the quiet time has passed
        blocks -= isinstance(event, AccountBlocked) and task.state is State.SUBMITTING
        before, task = task, advance(task, event, now, policy)
        assert sound(task), (before, event, task)
        assert (task.generation, task.key, task.ref) == (1, before.key, before.ref)
    raise AssertionError(f"still going: {task}")


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_every_sequence_with_an_operator_is_sound(data):
    """No purchase is made while an earlier one is in doubt."""
    task, now = make_task(State.QUEUED), NOW
    for _ in range(40):
        kinds = possible(task)
        if not kinds:
            return
        event = data.draw(STRATEGIES[data.draw(st.sampled_from(kinds))])
        now += data.draw(st.floats(0.0, 30.0))
        before, task = task, advance(task, event, now, SHORT)
        assert sound(task), (before, event, task)
        if task.generation != before.generation:
            assert isinstance(event, Retried)
            assert before.state is State.FAILED or (event.anew and is_linked(before))
        if before.state in {State.IN_DOUBT, State.HELD} and task.state is State.QUEUED:
            believed = (
                isinstance(event, Missing)
                and event.quiet
                and event.provable
                and (before.is_suspect or before.absences + 1 >= SHORT.required_absences)
            )
            assert believed or event == Resolved("absent", "ann", event.remote_id)


@pytest.mark.parametrize("event", get_args(Event))
def test_events_are_frozen(event):
    assert dataclasses.is_dataclass(event)
    assert event.__dataclass_params__.frozen


# refusals that are looked up

LISTED = {"reason": "refused, and looked up: 1302", "spent": 4.0, "cost": 4.0}
BELIEVED = Missing(quiet=True, refundable=False, why="nothing contradicts it")
PROVED = Missing(quiet=True, why="a later task stands in the list")


def suspect(reason: str = "throttled", **fields) -> Task:
    refusal = TaskError(reason, "1302", "too fast")
    return make_task(State.IN_DOUBT, **{**LISTED, "error": refusal, **fields})


def test_refused_submit_waits_as_a_suspect_and_not_as_a_doubt():
    task = after(State.SUBMITTING, Suspected(TaskError("throttled", "1302", "too fast")), spent=4.0, cost=4.0)
    assert task.is_suspect
    assert (task.state, task.doubts, task.spent) == (State.IN_DOUBT, 0, 4.0)
    assert task.due_at == NOW + 2.0


def test_suspect_that_is_found_is_adopted():
    task = advance(suspect(), Found("u-1", "found in the list"), NOW, POLICY)
    assert (task.state, task.remote_id, task.adopted, task.error) == (State.RUNNING, "u-1", True, NO_ERROR)
    assert not task.is_suspect


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        ("throttled", "queued"),
        ("window", "queued"),
        ("credit", "queued"),
        ("moderation", "failed"),
        ("invalid", "failed"),
    ],
)
def test_suspect_without_a_task_is_left_as_its_refusal_says(reason, state):
    """It takes one reading, since its request is not under way; its price comes back where that is proved."""
    task = advance(suspect(reason), PROVED, NOW, POLICY)
    assert (task.state, task.spent, task.doubts) == (state, 0.0, 0)
    assert advance(suspect(reason), BELIEVED, NOW, POLICY).spent == 4.0
    assert (task.error.reason == reason) == (reason not in {"throttled", "window"})
    assert task.throttles == (reason in {"throttled", "window"})


def test_throttled_suspects_use_up_throttles():
    task = advance(suspect(throttles=POLICY.max_throttles - 1), PROVED, NOW, POLICY)
    assert (task.state, task.error.reason) == (State.FAILED, "throttled")


def test_suspect_that_nothing_can_judge_is_held_with_its_refusal():
    task = advance(suspect(absences=1), Missing(quiet=True, provable=False, why="the list shows nothing"), NOW, POLICY)
    assert (task.state, task.spent, task.doubts) == (State.HELD, 4.0, 1)
    assert task.error.message == "refused with 1302, not found, and the list shows nothing"


def test_suspect_may_rest_and_stay_one():
    task = advance(suspect(), Missing(quiet=True, witnessed=False, why="no later task"), NOW, POLICY)
    assert task.is_suspect
    assert (task.due_at, task.error.reason) == (None, "throttled")


def test_lost_answer_that_is_only_believed_absent_stays_counted():
    fields = {"spent": 4.0, "cost": 4.0, "absences": 1, "doubts": 1}
    task = after(State.IN_DOUBT, BELIEVED, **fields)
    assert (task.state, task.spent) == (State.QUEUED, 4.0)
    assert after(State.IN_DOUBT, PROVED, **fields).spent == 0.0


def test_unreadable_lists_hold_a_doubt_after_the_patience():
    """Until then it rests, and each run tries again."""
    fields = {"failures": POLICY.max_unclean - 1, "doubts": 1}
    task = after(State.IN_DOUBT, RetryableFailure("trouble", TROUBLE), **fields)
    assert (task.state, task.due_at) == (State.IN_DOUBT, None)
    late = NOW + POLICY.witness_patience + 1
    task = after(State.IN_DOUBT, RetryableFailure("trouble", TROUBLE), now=late, **fields)
    assert (task.state, task.error.reason) == (State.HELD, "in_doubt")
    assert "for 3 days" in task.error.message
    assert "tired" in task.error.message


def test_without_trust_no_absence_is_believed():
    policy = replace(POLICY, can_reconcile=False)
    task = advance(make_task(State.IN_DOUBT, absences=1, doubts=1), PROVED, NOW, policy)
    assert task.state is State.HELD


def test_interval_of_suspects_is_short_and_grows():
    assert [suspect_interval(POLICY, looks) for looks in (0, 1, 2, 9)] == [2.0, 4.0, 8.0, 30.0]
    assert suspect_interval(RetryPolicy(quiet_time=0.8)) == pytest.approx(0.1)


def test_reason_of_a_second_send_outlives_its_answer():
    """A purchase that was made again says why for good, whatever the second send was answered with."""
    missing = Missing(quiet=True, why="absent from a list that shows u-9")
    task = advance(make_task(State.IN_DOUBT, doubts=1, absences=1), missing, NOW, POLICY)
    for answer in (
        RetryableFailure("throttled", TROUBLE),
        AccountBlocked("credit", TROUBLE),
        Accepted("u-1", "http 200"),
    ):
        task = advance(advance(task, Claimed(Moment("b", 1.0), NOW), NOW, POLICY), answer, NOW, POLICY)
        assert task.reason == "absent from a list that shows u-9"


def test_adoption_by_a_person_is_on_record_once_it_is_known():
    adopted = advance(make_task(State.HELD), Resolved("adopt", "ann", "u-1"), NOW, POLICY)
    assert advance(adopted, Pending("Generating"), NOW + 1, POLICY).reason == "adopted by ann"
