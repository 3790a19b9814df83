from __future__ import annotations

import dataclasses
import graphlib
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.lifecycle.events import (
    Accepted,
    Blocked,
    Claimed,
    Event,
    Finished,
    Found,
    Interrupted,
    LinkExpired,
    Missing,
    Pending,
    Refused,
    Resolved,
    Retried,
    Saved,
    Setback,
)
from runner.lifecycle.patience import Patience, look_gap
from runner.lifecycle.task import NO_FAULT, Fault, Moment, Output, State, Task, reference
from runner.lifecycle.transitions import COUNTED, TRANSITIONS, IllegalTransition, advance

NOW = 1_790_000_000.0
TIRED = Fault("trouble", "5000", "the other side is tired")
RISK = Fault("moderation", "1301", "risk")
LINKS = (Output(1, "https://files.example/1.png"), Output(2, "https://files.example/2.png"))
PAID = {State.RUNNING, State.READY, State.DONE, State.STRANDED}
ENDED = {State.FAILED, State.STRANDED}
ASLEEP = {State.SUBMITTING, State.HELD, State.DONE, State.FAILED, State.STRANDED}
PATIENCE = Patience()

#: one of each kind, and its remarkable relatives
EVENTS: tuple[Event, ...] = (
    Claimed(Moment("boot-a", 12.5), NOW),
    Accepted("u-1", "http 200"),
    Interrupted("no answer within 60 s"),
    Interrupted("accepted under an id that is none", hopeless=True),
    Found("u-1", "found in the list"),
    Missing(quiet=False),
    Missing(quiet=True),
    Missing(quiet=True, provable=False),
    Pending("Generating"),
    Pending("Success", settling=True),
    Finished(LINKS),
    LinkExpired(Fault("expired", "403", None)),
    Saved(LINKS),
    Setback("trouble", TIRED),
    Setback("throttled", TIRED, 30.0),
    Setback("unsent", TIRED),
    Refused(RISK),
    Refused(RISK, maybe_taken=True),
    Blocked("credit", TIRED),
    Retried(),
    Resolved("absent", "ann"),
    Resolved("adopt", "ann", "u-9"),
    Resolved("abandon", "ann"),
)


def made(state: State, **fields) -> Task:
    """A task as it stands in that state on its first purchase."""
    key = "ab" * 16
    task = Task(7, key, "kling", "image", "kling-v3", state, due_at=None if state in ASLEEP else NOW)
    task = replace(task, ref=reference("0123456789abcdef", key, 1), since=NOW)
    if state is not State.QUEUED:
        task = replace(task, sent=Moment("boot-a", 12.5), submitted_at=NOW)
    if state in PAID:
        task = replace(task, remote_id="u-1")
    return replace(task, **fields)


def late(state: State, event: type[Event]) -> dict:
    """What a task must be for outputs to come after all: accepted, and stuck rather than lost otherwise."""
    return {"remote_id": "u-1", "fault": Fault("stuck")} if event is Finished and state in ENDED else {}


def possible(task: Task) -> list[type[Event]]:
    """What the table has for a task; of outputs after all only what a second look can bring."""
    lost = task.state in ENDED and (task.remote_id is None or task.fault.reason not in {"stuck", "moderation"})
    return [kind for kind in TRANSITIONS[task.state] if not (kind is Finished and lost)]


def after(state: State, event: Event, *, now: float = NOW, patience: Patience = PATIENCE, **fields) -> Task:
    return advance(made(state, **fields), event, now, patience)


# the table as a whole


def test_every_state_has_its_entry_and_every_event_its_place():
    assert set(TRANSITIONS) == set(State)
    known = {event for ways in TRANSITIONS.values() for event in ways}
    assert known == set(get_args(Event)) == {type(event) for event in EVENTS}
    assert set(COUNTED) <= known


def test_without_the_counted_events_there_is_no_circle():
    graph = {
        state: {target for event, targets in ways.items() if event not in COUNTED for target in targets}
        for state, ways in TRANSITIONS.items()
    }
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("counted", COUNTED)
def test_every_counted_event_is_counted_for_a_reason(counted):
    """Putting it back makes a circle: nothing stands in the list that need not."""
    graph = {
        state: {
            target for event, targets in ways.items() if event is counted or event not in COUNTED for target in targets
        }
        for state, ways in TRANSITIONS.items()
    }
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(graph).prepare()


STRANGERS = [(state, event) for state in State for event in EVENTS if type(event) not in TRANSITIONS[state]]


@pytest.mark.parametrize(("state", "event"), STRANGERS, ids=lambda value: str(value)[:40])
def test_what_is_not_in_the_table_is_a_bug_and_says_so(state, event):
    with pytest.raises(IllegalTransition, match=state):
        after(state, event)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", EVENTS, ids=lambda value: str(value)[:40])
def test_whatever_is_decided_stands_in_the_table(state, event):
    ways = TRANSITIONS[state].get(type(event))
    if ways:
        assert after(state, event, **late(state, type(event))).state in ways


@pytest.mark.parametrize("event", EVENTS, ids=lambda value: str(value)[:40])
def test_what_is_done_stays_done_and_a_failure_ends_only_by_a_persons_word_or_its_outputs(event):
    if isinstance(event, Retried):
        assert after(State.DONE, event).state is State.RUNNING, "`verify` fetches what is missing, and buys nothing"
        return
    for state in (State.DONE, State.FAILED):
        with pytest.raises(IllegalTransition):
            after(state, event)


def test_outputs_after_all_end_a_failure_that_was_accepted_and_that_nobody_gave_up():
    found = after(State.FAILED, Finished(LINKS), remote_id="u-1", fault=RISK, due_at=None)
    assert (found.state, found.outputs, found.due_at, found.since) == (State.READY, LINKS, NOW, NOW)
    assert (found.fault, found.remote_id) == (NO_FAULT, "u-1")
    with pytest.raises(IllegalTransition):
        after(State.FAILED, Finished(LINKS), remote_id="u-1", fault=Fault("abandoned"))


def test_outputs_after_all_end_a_stuck_task_but_not_one_whose_links_were_dead():
    assert after(State.STRANDED, Finished(LINKS), fault=Fault("stuck")).state is State.READY
    with pytest.raises(IllegalTransition):
        after(State.STRANDED, Finished(LINKS), fault=Fault("link_expired"))


# the paid step


def test_a_claim_is_written_down_before_anything_leaves():
    task = after(State.QUEUED, Claimed(Moment("boot-b", 99.0), NOW + 1))
    assert (task.state, task.due_at) == (State.SUBMITTING, None)
    assert (task.sent, task.submitted_at, task.since) == (Moment("boot-b", 99.0), NOW + 1, NOW + 1)


def test_an_accepted_task_is_polled_after_its_first_look():
    task = after(State.SUBMITTING, Accepted("u-5", "http 200"), patience=Patience(first_look=4.0), failures=3)
    assert (task.state, task.remote_id, task.due_at) == (State.RUNNING, "u-5", NOW + 4.0)
    assert (task.adopted, task.failures, task.fault, task.evidence) == (False, 0, NO_FAULT, "http 200")


def test_no_clear_answer_is_a_doubt_to_be_looked_up_at_once():
    task = after(State.SUBMITTING, Interrupted("cut off"), doubts=1, looks=5)
    assert (task.state, task.due_at, task.doubts, task.looks) == (State.IN_DOUBT, NOW, 2, 0)
    assert task.fault == Fault("in_doubt", None, "cut off")
    assert task.sent is not None


def test_where_nobody_can_be_asked_a_doubt_is_held_at_once():
    task = after(State.SUBMITTING, Interrupted("cut off"), patience=Patience(can_look_up=False))
    assert (task.state, task.due_at, task.doubts) == (State.HELD, None, 1)


def test_what_was_accepted_under_an_id_that_is_none_is_held_even_where_there_is_a_list():
    task = after(State.SUBMITTING, Interrupted("an id that is none", hopeless=True))
    assert (task.state, task.due_at, task.doubts) == (State.HELD, None, 1)


def test_a_refusal_fails_the_task_for_good():
    task = after(State.SUBMITTING, Refused(RISK))
    assert (task.state, task.due_at, task.fault, task.finished_at) == (State.FAILED, None, RISK, NOW)


@pytest.mark.parametrize(("doubts", "state"), [(0, State.FAILED), (1, State.IN_DOUBT), (2, State.IN_DOUBT)])
def test_a_refusal_that_may_mean_the_reference_exists_settles_no_earlier_doubt(doubts, state):
    assert after(State.SUBMITTING, Refused(RISK, maybe_taken=True), doubts=doubts).state is state
    assert after(State.SUBMITTING, Refused(RISK), doubts=doubts).state is State.FAILED


def test_such_a_refusal_is_held_where_nobody_can_be_asked():
    task = after(State.SUBMITTING, Refused(RISK, maybe_taken=True), doubts=1, patience=Patience(can_look_up=False))
    assert task.state is State.HELD


@pytest.mark.parametrize("kind", ["throttled", "window", "unsent"])
def test_what_was_certainly_not_accepted_waits_as_long_as_it_was_told_and_costs_no_attempt(kind):
    task = after(State.SUBMITTING, Setback(kind, TIRED, 30.0))
    assert (task.state, task.due_at, task.sent) == (State.QUEUED, NOW + 30.0, None)
    assert (task.attempts, task.throttles) == (0, 1)


@pytest.mark.parametrize("kind", ["throttled", "unsent"])
def test_a_rate_or_a_lost_line_is_the_limiters_to_wait_for(kind):
    assert after(State.SUBMITTING, Setback(kind, TIRED), throttles=9).due_at == NOW


def test_a_full_window_is_asked_again_at_growing_intervals():
    full = [after(State.SUBMITTING, Setback("window", TIRED), throttles=n).due_at - NOW for n in (0, 1, 2, 50)]
    assert full == [1.0, 2.0, 4.0, 60.0]


def test_trouble_costs_attempts_and_backs_off():
    due = [
        after(State.SUBMITTING, Setback("trouble", TIRED), attempts=n, patience=Patience(attempts=9)) for n in range(4)
    ]
    assert [task.due_at - NOW for task in due] == [1.0, 2.0, 4.0, 8.0]
    assert [task.attempts for task in due] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("event", "field", "last"),
    [(Setback("trouble", TIRED), "attempts", 3), (Setback("throttled", TIRED), "throttles", 999)],
)
def test_even_harmless_refusals_are_one_day_too_many(event, field, last):
    assert after(State.SUBMITTING, event, **{field: last - 1}).state is State.QUEUED
    task = after(State.SUBMITTING, event, **{field: last})
    assert (task.state, task.fault, getattr(task, field)) == (State.FAILED, TIRED, last + 1)


def test_an_account_that_takes_nothing_costs_the_task_nothing():
    task = after(State.SUBMITTING, Blocked("credit", TIRED), attempts=2, throttles=3)
    assert (task.state, task.due_at, task.sent, task.fault) == (State.QUEUED, NOW, None, TIRED)
    assert (task.attempts, task.throttles) == (2, 3)


# doubt


def test_found_acts_at_once():
    task = after(State.IN_DOUBT, Found("u-3", "found by reference"), looks=1, failures=4, doubts=2)
    assert (task.state, task.remote_id, task.due_at, task.adopted) == (State.RUNNING, "u-3", NOW, True)
    assert (task.looks, task.failures, task.doubts) == (0, 0, 2)


@pytest.mark.parametrize("looks", [0, 1, 7])
def test_an_absence_before_the_quiet_time_proves_nothing(looks):
    task = after(State.IN_DOUBT, Missing(quiet=False), looks=looks)
    assert (task.state, task.looks, task.due_at) == (State.IN_DOUBT, looks + 1, NOW + look_gap(PATIENCE))


def test_one_quiet_look_is_not_enough_and_the_second_is_a_quarter_of_the_quiet_time_later():
    first = after(State.IN_DOUBT, Missing(quiet=True), patience=Patience(doubt=300))
    assert (first.state, first.looks, first.due_at) == (State.IN_DOUBT, 1, NOW + 75)
    second = advance(first, Missing(quiet=True), NOW + 75, Patience(doubt=300))
    assert (second.state, second.due_at, second.looks, second.evidence) == (State.QUEUED, NOW + 75, 0, "absent")
    assert second.fault == NO_FAULT


def test_an_absence_keeps_the_reference_and_counts_the_sends():
    before = made(State.IN_DOUBT, looks=1, doubts=2)
    task = advance(before, Missing(quiet=True), NOW, PATIENCE)
    assert (task.state, task.ref, task.generation, task.doubts) == (State.QUEUED, before.ref, 1, 2)


@pytest.mark.parametrize(("doubts", "state"), [(1, State.QUEUED), (2, State.QUEUED), (3, State.HELD), (4, State.HELD)])
def test_after_three_sends_a_person_decides(doubts, state):
    assert after(State.IN_DOUBT, Missing(quiet=True), looks=1, doubts=doubts).state is state


def test_an_absence_that_proves_nothing_is_held_but_only_when_it_would_have_been_believed():
    unproved = Missing(quiet=True, provable=False)
    assert after(State.IN_DOUBT, unproved, looks=0, doubts=1).state is State.IN_DOUBT
    assert after(State.IN_DOUBT, Missing(quiet=False, provable=False), looks=5, doubts=1).state is State.IN_DOUBT
    task = after(State.IN_DOUBT, unproved, looks=1, doubts=1)
    assert (task.state, task.due_at) == (State.HELD, None)
    assert "not known to show" in task.fault.message


def test_unclean_looks_in_a_row_leave_the_rest_to_the_next_run():
    patience = Patience(unclean=3, doubt=120)
    task, waits = made(State.IN_DOUBT), []
    for _ in range(3):
        task = advance(task, Setback("trouble", TIRED), NOW, patience)
        waits.append(task.due_at and task.due_at - NOW)
    assert (task.state, waits) == (State.IN_DOUBT, [1.0, 2.0, None])


def test_an_unclean_look_counts_for_nothing_and_waits_as_it_is_told():
    task = after(State.IN_DOUBT, Setback("throttled", TIRED, 45.0), looks=1)
    assert (task.state, task.looks, task.due_at) == (State.IN_DOUBT, 1, NOW + 45.0)


def test_a_doubt_sleeps_while_the_account_answers_nothing():
    task = after(State.IN_DOUBT, Blocked("credentials", TIRED), looks=1)
    assert (task.state, task.due_at, task.looks) == (State.IN_DOUBT, None, 1)


# a person's word


def test_a_person_may_adopt_what_is_held():
    task = after(State.HELD, Resolved("adopt", "ann", "u-9"))
    assert (task.state, task.remote_id, task.due_at, task.adopted) == (State.RUNNING, "u-9", NOW, True)
    assert task.evidence == "adopt by ann"


@pytest.mark.parametrize("nothing", [None, ""])
def test_nobody_can_adopt_nothing(nothing):
    with pytest.raises(IllegalTransition):
        after(State.HELD, Resolved("adopt", "ann", nothing))


def test_a_persons_absent_buys_the_same_purchase_again_and_forgets_no_doubt():
    before = made(State.HELD, doubts=3, looks=2)
    task = advance(before, Resolved("absent", "ann"), NOW, PATIENCE)
    assert (task.state, task.due_at, task.evidence) == (State.QUEUED, NOW, "absent by ann")
    assert (task.generation, task.ref, task.doubts, task.looks) == (1, before.ref, 3, 0)
    sent = advance(task, Claimed(Moment("boot-a", 20.0), NOW), NOW, PATIENCE)
    told = advance(sent, Refused(RISK, maybe_taken=True), NOW, PATIENCE)
    assert told.state is State.IN_DOUBT, "the reference exists after all: the person was mistaken"


def test_a_person_may_abandon_what_is_held():
    task = after(State.HELD, Resolved("abandon", "ann"))
    assert (task.state, task.due_at, task.fault.reason, task.evidence) == (
        State.FAILED,
        None,
        "abandoned",
        "abandon by ann",
    )


def test_retrying_a_failure_is_a_new_purchase_under_a_new_reference():
    spent = {
        "remote_id": "u-1",
        "attempts": 4,
        "throttles": 9,
        "doubts": 3,
        "looks": 2,
        "refreshes": 5,
        "adopted": True,
    }
    before = made(State.FAILED, fault=RISK, failures=2, **spent)
    task = advance(before, Retried(), NOW + 10, PATIENCE)
    assert (task.state, task.due_at, task.since, task.generation) == (State.QUEUED, NOW + 10, NOW + 10, 2)
    assert task.ref == reference("0123456789abcdef", before.key, 2) != before.ref
    assert (task.remote_id, task.sent, task.fault, task.adopted) == (None, None, NO_FAULT, False)
    assert {task.attempts, task.throttles, task.doubts, task.looks, task.refreshes, task.failures} == {0}
    third = advance(replace(task, state=State.FAILED), Retried(), NOW, PATIENCE)
    assert (third.generation, third.ref) == (3, reference("0123456789abcdef", before.key, 3))


def test_retrying_what_is_stranded_is_free():
    before = made(State.STRANDED, refreshes=8, failures=3, fault=TIRED)
    task = advance(before, Retried(), NOW + 10, PATIENCE)
    assert (task.state, task.due_at, task.since) == (State.RUNNING, NOW + 10, NOW + 10)
    assert (task.remote_id, task.generation, task.ref) == (before.remote_id, 1, before.ref)
    assert (task.refreshes, task.failures, task.fault) == (0, 0, NO_FAULT)


# what is paid


def test_still_running_changes_nothing_that_would_have_to_be_written():
    before = made(State.RUNNING)
    assert advance(before, Pending("Generating"), NOW + 5, PATIENCE) == before


def test_success_without_outputs_is_asked_about_a_bounded_number_of_times():
    task = made(State.RUNNING)
    settling = Pending("Success", settling=True)
    for step in range(1, 20):
        task = advance(task, settling, NOW, PATIENCE)
        assert (task.state, task.failures) == (State.RUNNING, step)
    task = advance(task, settling, NOW, PATIENCE)
    assert (task.state, task.due_at, task.fault.reason) == (State.STRANDED, None, "no_output")


@pytest.mark.parametrize("state", [State.RUNNING, State.READY])
@pytest.mark.parametrize(
    "event", [Pending("x"), Setback("trouble", TIRED), Blocked("account", TIRED), LinkExpired(TIRED)], ids=str
)
def test_the_time_for_what_is_paid_has_an_end(state, event):
    if type(event) not in TRANSITIONS[state]:
        return
    patience = Patience(paid=100.0)
    assert after(state, event, now=NOW + 100.0, patience=patience).state is not State.STRANDED
    task = after(state, event, now=NOW + 100.5, patience=patience)
    assert (task.state, task.due_at, task.remote_id) == (State.STRANDED, None, "u-1")


@pytest.mark.parametrize("state", [State.RUNNING, State.READY])
def test_a_setback_of_what_is_paid_backs_off_and_never_fails_it(state):
    task, waits = made(state), []
    for _ in range(40):
        task = advance(task, Setback("trouble", TIRED), NOW, PATIENCE)
        waits.append(task.due_at - NOW)
    assert (task.state, task.failures) == (state, 40)
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert max(waits) == 60.0
    assert after(state, Setback("throttled", TIRED, 300.0)).due_at == NOW + 300.0


def test_a_remote_failure_fails_the_task_and_keeps_its_id():
    task = after(State.RUNNING, Refused(RISK))
    assert (task.state, task.remote_id, task.finished_at) == (State.FAILED, "u-1", NOW)


def test_finished_outputs_are_fetched_at_once():
    task = after(State.RUNNING, Finished(LINKS), failures=3)
    assert (task.state, task.due_at, task.outputs, task.failures) == (State.READY, NOW, LINKS, 0)
    assert task.finished_at == NOW


def test_a_dead_link_is_asked_for_anew_a_bounded_number_of_times():
    task = made(State.READY)
    for step in range(1, 8):
        task = advance(task, LinkExpired(TIRED), NOW, PATIENCE)
        assert (task.state, task.refreshes) == (State.RUNNING, step)
        task = advance(task, Finished(LINKS), NOW, PATIENCE)
    task = advance(task, LinkExpired(TIRED), NOW, PATIENCE)
    assert (task.state, task.due_at, task.fault) == (State.STRANDED, None, TIRED)


def test_saved_is_done_and_says_so_if_something_is_missing():
    task = after(State.READY, Saved(LINKS))
    assert (task.state, task.due_at, task.outputs, task.fault) == (State.DONE, None, LINKS, NO_FAULT)
    partial = Fault("partial", None, "1 of 2")
    assert after(State.READY, Saved(LINKS[:1], partial)).fault == partial


# every life

KINDS = st.sampled_from(["unsent", "throttled", "window", "trouble"])
WAITS = st.none() | st.floats(0.5, 900.0)
IDS = st.sampled_from(["u-1", "900000000000000001", "g-a"])
LIVES = {
    Claimed: st.builds(Claimed, st.just(Moment("boot-a", 1.0)), st.just(NOW)),
    Accepted: st.builds(Accepted, IDS),
    Interrupted: st.builds(Interrupted, st.just("cut off"), st.booleans()),
    Found: st.builds(Found, IDS),
    Missing: st.builds(Missing, st.booleans(), st.booleans()),
    Pending: st.builds(Pending, st.just("x"), st.booleans()),
    Finished: st.just(Finished(LINKS)),
    LinkExpired: st.just(LinkExpired(TIRED)),
    Saved: st.just(Saved(LINKS)),
    Setback: st.builds(Setback, KINDS, st.just(TIRED), WAITS),
    Refused: st.builds(Refused, st.just(RISK), st.booleans()),
    Blocked: st.builds(Blocked, st.sampled_from(["credentials", "credit"]), st.just(TIRED)),
    Retried: st.just(Retried()),
    Resolved: st.builds(Resolved, st.sampled_from(["adopt", "absent", "abandon"]), st.just("ann"), IDS),
}
SHORT = Patience(attempts=2, throttles=4, paid=60.0, doubt=4.0, looks=2, sends=2, unclean=3, settlings=3, refreshes=3)


def sound(task: Task) -> bool:
    """What no row may ever be otherwise (the store's CHECKs, and then some)."""
    return (
        (task.state not in PAID or bool(task.remote_id))
        and (task.state not in {State.QUEUED, State.SUBMITTING, State.IN_DOUBT, State.HELD} or task.remote_id is None)
        and (task.state is not State.SUBMITTING or task.sent is not None)
        and (task.state not in ASLEEP or task.due_at is None)
        and (task.state not in {State.QUEUED, State.READY} or task.due_at is not None)
        and (task.state is not State.HELD or task.doubts > 0)
        and task.ref.endswith(f"-g{task.generation}")
    )


@settings(max_examples=100, deadline=None)
@given(st.data(), st.booleans())
def test_every_life_is_sound_and_comes_to_rest_in_bounded_steps(data, can_look_up):
    """Machines alone: a person's word would make any life longer."""
    patience = replace(SHORT, can_look_up=can_look_up)
    task, now, blocks = made(State.QUEUED), NOW, 3
    for _ in range(600):
        kinds = [kind for kind in possible(task) if kind not in {Retried, Resolved}]
        if task.state is State.SUBMITTING and not blocks:
            kinds.remove(Blocked)  # a run that is blocked submits nothing more
        if not kinds or (task.state is State.IN_DOUBT and task.due_at is None):
            return
        now = max(now, task.due_at or now) + 1.0
        event = data.draw(LIVES[data.draw(st.sampled_from(kinds))])
        if isinstance(event, Missing) and task.looks > 5:
            event = replace(event, quiet=True)  # the quiet time passes
        blocks -= isinstance(event, Blocked) and task.state is State.SUBMITTING
        was, task = task, advance(task, event, now, patience)
        assert sound(task), (was, event, task)
        assert (task.generation, task.key, task.ref) == (1, was.key, was.ref)
    raise AssertionError(f"still going: {task}")


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_with_people_too_every_step_is_sound_and_no_purchase_is_made_behind_a_doubt(data):
    task, now = made(State.QUEUED), NOW
    for _ in range(40):
        ways = possible(task)
        if not ways:
            return
        event = data.draw(LIVES[data.draw(st.sampled_from(ways))])
        now += data.draw(st.floats(0.0, 30.0))
        was, task = task, advance(task, event, now, SHORT)
        assert sound(task), (was, event, task)
        if task.generation != was.generation:
            assert (was.state, type(event)) == (State.FAILED, Retried)
        if was.state in {State.IN_DOUBT, State.HELD} and task.state is State.QUEUED:
            believed = isinstance(event, Missing) and event.quiet and event.provable and was.looks + 1 >= SHORT.looks
            assert believed or event == Resolved("absent", "ann", event.remote_id)


@pytest.mark.parametrize("event", get_args(Event))
def test_events_cannot_be_changed(event):
    assert dataclasses.is_dataclass(event)
    assert event.__dataclass_params__.frozen
