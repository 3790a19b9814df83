"""Check `spent`: the price counts before the submit, and is subtracted only if the purchase certainly costs nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.tasks.events import (
    Accepted,
    AccountBlocked,
    Claimed,
    Finished,
    Found,
    Interrupted,
    Missing,
    Rejected,
    Resolved,
    Retried,
    RetryableFailure,
)
from runner.tasks.models import Moment, Output, State, Task, TaskError
from runner.tasks.retry_policy import RetryPolicy
from runner.tasks.transitions import TRANSITIONS, advance

NOW = 1_790_000_000.0
POLICY = RetryPolicy(quiet_time=10.0)
SENT = Claimed(Moment("boot", 1.0), NOW)
ERROR = TaskError("because")
LATE = Finished((Output(1, "https://x"),))


def run_events(*events, cost=4.0, policy=POLICY):
    task = Task(1, "ab" * 16, "p", "image", "m", State.QUEUED, NOW, ref="r0-ab-g1", cost=cost)
    for event in events:
        task = advance(task, event, NOW, policy)
    return task


@pytest.mark.parametrize(
    ("events", "spent"),
    [
        pytest.param([SENT], 4.0, id="on the wire"),
        pytest.param([SENT, Interrupted("lost")], 4.0, id="in doubt"),
        pytest.param([SENT, Accepted("u")], 4.0, id="accepted"),
        pytest.param([SENT, RetryableFailure("throttled", ERROR)], 0.0, id="throttled"),
        pytest.param([SENT, RetryableFailure("unsent", ERROR)], 0.0, id="not sent"),
        pytest.param([SENT, AccountBlocked("credit", ERROR)], 0.0, id="account blocked"),
        pytest.param([SENT, Rejected(ERROR)], 0.0, id="rejected at once"),
        pytest.param([SENT, Accepted("u"), Rejected(ERROR)], 4.0, id="failed and billed"),
        pytest.param([SENT, Accepted("u"), Rejected(ERROR, billed=False)], 0.0, id="failed and free"),
        pytest.param([SENT, Accepted("u"), Rejected(ERROR), LATE], 4.0, id="billed failure with late outputs"),
        pytest.param(
            [SENT, Accepted("u"), Rejected(ERROR, billed=False), LATE], 4.0, id="free failure with late outputs"
        ),
        pytest.param([SENT, Accepted("u"), Rejected(ERROR), Retried(), SENT], 8.0, id="bought again"),
        pytest.param(
            [SENT, Accepted("u"), Rejected(ERROR, billed=False), Retried(), SENT],
            4.0,
            id="bought again after a free failure",
        ),
        pytest.param([SENT, Interrupted("x"), Missing(quiet=True), Missing(quiet=True)], 0.0, id="proved absent"),
        pytest.param([SENT, Interrupted("x"), Found("u")], 4.0, id="found again"),
        pytest.param([SENT, Interrupted("x", hopeless=True)], 4.0, id="held"),
        pytest.param([SENT, Interrupted("x", hopeless=True), Resolved("absent", "ann")], 0.0, id="resolved as absent"),
        pytest.param([SENT, Interrupted("x", hopeless=True), Resolved("abandon", "ann")], 4.0, id="abandoned"),
        pytest.param([Resolved("adopt", "ann", "u")], 4.0, id="adopted from an unknown run"),
        pytest.param([Resolved("absent", "ann")], 0.0, id="nothing to subtract"),
    ],
)
def test_spent_after_events(events, spent):
    assert run_events(*events).spent == spent


def test_unknown_price_counts_as_nothing_spent():
    assert run_events(SENT, Accepted("u"), cost=None).spent == 0.0


EVENTS = {
    Claimed: [SENT],
    Accepted: [Accepted("u-1")],
    Found: [Found("u-1")],
    Interrupted: [Interrupted("x"), Interrupted("x", hopeless=True)],
    Missing: [Missing(quiet=True), Missing(quiet=True, provable=False)],
    RetryableFailure: [RetryableFailure("throttled", ERROR), RetryableFailure("trouble", ERROR)],
    AccountBlocked: [AccountBlocked("credit", ERROR)],
    Rejected: [Rejected(ERROR), Rejected(ERROR, billed=False)],
    Finished: [Finished((Output(1, "https://x"),))],
    Retried: [Retried()],
    Resolved: [Resolved("adopt", "ann", "u-2"), Resolved("absent", "ann"), Resolved("abandon", "ann")],
}


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_purchase_that_may_be_paid_always_counts(data):
    """After any events, `spent` covers what is open or paid, and is a whole number of prices."""
    task = run_events()
    for _ in range(25):
        kinds = [event for event in TRANSITIONS[task.state] if event in EVENTS]
        if task.state is State.STRANDED or (task.state is State.FAILED and task.remote_id is None):
            kinds.remove(Finished)  # late outputs come only for tasks that were accepted, and rejected or timed out
        if task.state is State.FAILED and task.error.reason == "abandoned":
            kinds = [Retried]
        if not kinds:
            return
        before = task
        task = advance(before, data.draw(st.sampled_from(EVENTS[data.draw(st.sampled_from(kinds))])), NOW, POLICY)
        assert task.spent % 4.0 == 0.0
        assert task.spent <= 4.0 * task.generation
        if task.state not in {State.QUEUED, State.FAILED}:
            assert task.spent >= 4.0
        if task.generation == before.generation and before.state in {State.DONE, State.STRANDED, State.READY}:
            assert task.spent == before.spent


def test_prices_in_tenths_add_up_exactly():
    task = replace(run_events(cost=0.1), spent=0.2)
    assert advance(task, SENT, NOW, POLICY).spent == 0.3
