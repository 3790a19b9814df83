"""What a task has spent: counted before it is sent, given back only where it certainly costs nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.lifecycle.events import (
    Accepted,
    Blocked,
    Claimed,
    Finished,
    Found,
    Interrupted,
    Missing,
    Refused,
    Resolved,
    Retried,
    Setback,
)
from runner.lifecycle.patience import Patience
from runner.lifecycle.task import Fault, Moment, Output, State, Task
from runner.lifecycle.transitions import TRANSITIONS, advance

NOW = 1_790_000_000.0
PATIENCE = Patience(doubt=10.0)
SENT = Claimed(Moment("boot", 1.0), NOW)
WHY = Fault("because")
LATE = Finished((Output(1, "https://x"),))


def played(*events, cost=4.0, patience=PATIENCE):
    task = Task(1, "ab" * 16, "p", "image", "m", State.QUEUED, NOW, ref="r0-ab-g1", cost=cost)
    for event in events:
        task = advance(task, event, NOW, patience)
    return task


@pytest.mark.parametrize(
    ("events", "spent"),
    [
        pytest.param([SENT], 4.0, id="on the wire"),
        pytest.param([SENT, Interrupted("lost")], 4.0, id="in doubt"),
        pytest.param([SENT, Accepted("u")], 4.0, id="accepted"),
        pytest.param([SENT, Setback("throttled", WHY)], 0.0, id="too fast"),
        pytest.param([SENT, Setback("unsent", WHY)], 0.0, id="never sent"),
        pytest.param([SENT, Blocked("credit", WHY)], 0.0, id="no credit"),
        pytest.param([SENT, Refused(WHY)], 0.0, id="refused at once"),
        pytest.param([SENT, Accepted("u"), Refused(WHY)], 4.0, id="failed and billed"),
        pytest.param([SENT, Accepted("u"), Refused(WHY, billed=False)], 0.0, id="failed and free"),
        pytest.param([SENT, Accepted("u"), Refused(WHY), LATE], 4.0, id="billed as a failure, and made after all"),
        pytest.param([SENT, Accepted("u"), Refused(WHY, billed=False), LATE], 4.0, id="not billed, and made after all"),
        pytest.param([SENT, Accepted("u"), Refused(WHY), Retried(), SENT], 8.0, id="bought anew"),
        pytest.param(
            [SENT, Accepted("u"), Refused(WHY, billed=False), Retried(), SENT], 4.0, id="again after a free one"
        ),
        pytest.param([SENT, Interrupted("x"), Missing(quiet=True), Missing(quiet=True)], 0.0, id="proved absent"),
        pytest.param([SENT, Interrupted("x"), Found("u")], 4.0, id="found again"),
        pytest.param([SENT, Interrupted("x", hopeless=True)], 4.0, id="held"),
        pytest.param([SENT, Interrupted("x", hopeless=True), Resolved("absent", "ann")], 0.0, id="absent, says ann"),
        pytest.param([SENT, Interrupted("x", hopeless=True), Resolved("abandon", "ann")], 4.0, id="given up"),
        pytest.param([Resolved("adopt", "ann", "u")], 4.0, id="bought by a run that nobody remembers"),
        pytest.param([Resolved("absent", "ann")], 0.0, id="nothing to give back"),
    ],
)
def test_what_is_spent(events, spent):
    assert played(*events).spent == spent


def test_what_has_no_price_spends_nothing_that_anyone_could_count():
    assert played(SENT, Accepted("u"), cost=None).spent == 0.0


EVENTS = {
    Claimed: [SENT],
    Accepted: [Accepted("u-1")],
    Found: [Found("u-1")],
    Interrupted: [Interrupted("x"), Interrupted("x", hopeless=True)],
    Missing: [Missing(quiet=True), Missing(quiet=True, provable=False)],
    Setback: [Setback("throttled", WHY), Setback("trouble", WHY)],
    Blocked: [Blocked("credit", WHY)],
    Refused: [Refused(WHY), Refused(WHY, billed=False)],
    Finished: [Finished((Output(1, "https://x"),))],
    Retried: [Retried()],
    Resolved: [Resolved("adopt", "ann", "u-2"), Resolved("absent", "ann"), Resolved("abandon", "ann")],
}


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_purchase_that_may_have_been_paid_always_counts(data):
    """I20: whatever happens, `spent` covers what is open or paid now, and is a whole number of prices."""
    task = played()
    for _ in range(25):
        ways = [event for event in TRANSITIONS[task.state] if event in EVENTS]
        if task.state is State.STRANDED or (task.state is State.FAILED and task.remote_id is None):
            ways.remove(
                Finished
            )  # a second look asks about what was accepted, and refused or stuck: here nothing is stuck
        if task.state is State.FAILED and task.fault.reason == "abandoned":
            ways = [Retried]
        if not ways:
            return
        was = task
        task = advance(was, data.draw(st.sampled_from(EVENTS[data.draw(st.sampled_from(ways))])), NOW, PATIENCE)
        assert task.spent % 4.0 == 0.0
        assert task.spent <= 4.0 * task.generation
        if task.state not in {State.QUEUED, State.FAILED}:
            assert task.spent >= 4.0
        if task.generation == was.generation and was.state in {State.DONE, State.STRANDED, State.READY}:
            assert task.spent == was.spent


def test_prices_in_tenths_add_up():
    task = replace(played(cost=0.1), spent=0.2)
    assert advance(task, SENT, NOW, PATIENCE).spent == 0.3
