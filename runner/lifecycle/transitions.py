"""Decide which event may follow which state and how the event changes the task.

1. Only the step that cannot be repeated has an in-progress state: `submitting` is on disk before the request leaves.
2. A submit without a clear answer is in doubt. `Found` acts at once, `Missing` is believed only after the quiet time.
3. Every cycle uses up some of the retry policy, so every task comes to rest.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

from runner.errors import RunnerError
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
from runner.lifecycle.patience import Patience, backoff, look_gap
from runner.lifecycle.task import NO_FAULT, Fault, State, Task

if TYPE_CHECKING:
    from collections.abc import Mapping

QUEUED, SUBMITTING, IN_DOUBT, HELD = State.QUEUED, State.SUBMITTING, State.IN_DOUBT, State.HELD
RUNNING, READY, DONE = State.RUNNING, State.READY, State.DONE
FAILED, STRANDED = State.FAILED, State.STRANDED

#: prefix of `Task.reason` while a remote id given by an operator has not been confirmed by the provider
BY_PERSON = "adopt by "

#: `Task.reason` of a failure that costs nothing
_FREE = "refused, and not billed"

#: state -> event -> possible next states, the usual one first
TRANSITIONS: Mapping[State, Mapping[type[Event], tuple[State, ...]]] = {
    QUEUED: {Claimed: (SUBMITTING,), Resolved: (RUNNING, QUEUED, FAILED)},
    SUBMITTING: {
        Accepted: (RUNNING,),
        Interrupted: (IN_DOUBT, HELD),
        Setback: (QUEUED, FAILED),
        Blocked: (QUEUED,),
        Refused: (FAILED, IN_DOUBT, HELD),
    },
    IN_DOUBT: {
        Found: (RUNNING,),
        Missing: (IN_DOUBT, QUEUED, HELD),
        Setback: (IN_DOUBT,),
        Blocked: (IN_DOUBT,),
    },
    HELD: {Resolved: (RUNNING, QUEUED, FAILED)},
    RUNNING: {
        Finished: (READY,),
        Pending: (RUNNING, STRANDED),
        Setback: (RUNNING, STRANDED, HELD),
        Blocked: (RUNNING, STRANDED),
        Refused: (FAILED, STRANDED),
        Resolved: (RUNNING, QUEUED, FAILED),
    },
    READY: {Saved: (DONE,), LinkExpired: (RUNNING, STRANDED), Setback: (READY, STRANDED)},
    DONE: {Retried: (RUNNING,)},
    FAILED: {Retried: (QUEUED, FAILED), Finished: (READY,)},
    STRANDED: {Retried: (RUNNING,), Finished: (READY,)},
}

#: cost of each event that can be part of a cycle; without these events the table has no cycle (kept by a test)
COUNTED: Mapping[type[Event], str] = {
    Setback: "attempts, throttles, failed reconciles, or the time limit for paid tasks",
    Blocked: "the account's credit with this run: nothing more is submitted",
    Missing: "reconciles, then submits",
    Pending: "the time limit for paid tasks",
    LinkExpired: "refreshes",
    Retried: "a decision of the user",
    Resolved: "a decision of the operator",
}


class IllegalTransition(RunnerError):  # noqa: N818
    """An event that the table does not allow in the task's state. It is a bug, never bad input."""


def advance(task: Task, event: Event, now: float, policy: Patience) -> Task:
    """Return the task as it is after the event, without any I/O.

    `now` is in seconds since the epoch. Raises IllegalTransitionError if the table does not allow the transition.
    """
    targets = TRANSITIONS[task.state].get(type(event), ())
    after = _decide(task, event, now, policy) if targets else task
    if after.state not in targets:
        raise IllegalTransition(f"{task.state} does not know {event!r} leading to {after.state} (task {task.key})")
    return after


def _decide(task: Task, event: Event, now: float, policy: Patience) -> Task:  # noqa: C901, PLR0911, PLR0912 - a table
    match event:
        case Claimed():
            task = replace(task, sent=event.moment, submitted_at=event.at, since=event.at)
            return replace(_charged(task), state=SUBMITTING, due_at=None)
        case Accepted() | Found():
            return _adopt(task, event.remote_id, event.evidence, now, policy, found=isinstance(event, Found))
        case Interrupted():
            return _doubt(task, event.evidence, now, policy, hopeless=event.hopeless)
        case Missing():
            return _missing(task, event, now, policy)
        case Pending():
            return _pending(task, event, now, policy)
        case Finished():
            return _finish(task, event, now)
        case LinkExpired():
            return _refresh(task, event.fault, now, policy)
        case Saved():
            return replace(task, state=DONE, due_at=None, failures=0, outputs=event.outputs, fault=event.fault)
        case Setback():
            return _set_back(task, event, now, policy)
        case Refused():
            if event.maybe_taken and task.doubts and task.state is SUBMITTING:
                return _doubt(task, f"{event.fault.code}: the reference may exist", now, policy)
            if task.state is RUNNING and task.finished_at is not None:
                return _strand(task, _withdrawn(event.fault))
            is_free = task.state is SUBMITTING or not event.billed
            return _fail(replace(_refunded(task), evidence=_FREE) if is_free else task, event.fault, now)
        case Blocked():
            return _blocked(task, event, now, policy)
        case Retried():
            return _retry(task, now, policy)
        case Resolved():
            return _resolve(task, event, now, policy)
    assert_never(event)


def _adopt(task: Task, remote_id: str, reason: str, now: float, policy: Patience, *, found: bool) -> Task:
    return replace(
        task,
        state=RUNNING,
        due_at=now + (0.0 if found else policy.first_look),
        remote_id=remote_id,
        adopted=found,
        failures=0,
        looks=0,
        fault=NO_FAULT,
        evidence=reason,
    )


def _doubt(task: Task, reason: str, now: float, policy: Patience, *, hopeless: bool = False) -> Task:
    state, due_at = (IN_DOUBT, now) if policy.can_look_up and not hopeless else (HELD, None)
    error = Fault("in_doubt", None, reason)
    return replace(
        task, state=state, due_at=due_at, doubts=task.doubts + 1, looks=0, failures=0, fault=error, evidence=reason
    )


def _missing(task: Task, event: Missing, now: float, policy: Patience) -> Task:
    absences = task.looks + 1
    if not event.quiet or absences < policy.looks:
        return replace(task, looks=absences, failures=0, due_at=now + look_gap(policy))
    if task.doubts >= policy.sends or not event.provable:
        message = f"{task.doubts} sends without an answer, none of them found"
        if not event.provable:
            message = "not found, in a list that is not known to show requests as they were sent"
        return replace(task, state=HELD, due_at=None, looks=absences, fault=Fault("in_doubt", None, message))
    task = _refunded(task)
    return replace(task, state=QUEUED, due_at=now, looks=0, failures=0, fault=NO_FAULT, evidence="absent")


def _pending(task: Task, event: Pending, now: float, policy: Patience) -> Task:
    failures = task.failures + 1 if event.settling else 0
    if event.settling and failures >= policy.settlings:
        trace = f" (trace {event.trace})" if event.trace else ""
        return _strand(task, Fault("no_output", None, f"the provider claims success and shows no output{trace}"))
    if _worn_out(task, now, policy):
        return _strand(task, Fault("stuck", None, f"still not finished after {policy.paid:.0f} s"))
    confirmed = "seen" if task.evidence.startswith(BY_PERSON) else task.evidence
    return replace(task, failures=failures, evidence=confirmed)


def _finish(task: Task, event: Finished, now: float) -> Task:
    if _may_be_late(task):
        task = _charged(task) if task.evidence == _FREE else task
        # the time limit starts again but the count of links does not, else a provider that keeps changing its answer
        # could keep the task alive without end
        task = replace(task, since=now, fault=NO_FAULT, evidence="made after all")
    elif task.state is not RUNNING:
        return task
    return replace(task, state=READY, due_at=now, failures=0, outputs=event.outputs, finished_at=now)


def _withdrawn(error: Fault) -> Fault:
    """Return the error of a task whose outputs were shown once. They stay paid, whatever the provider reports later."""
    return Fault("withdrawn", error.code, f"its outputs were there, and now the provider says: {error.message}")


def _may_be_late(task: Task) -> bool:
    """Return True if a task without outputs may still take them: it was accepted and never abandoned."""
    match task.state:
        case State.FAILED:
            return task.remote_id is not None and task.fault.reason != "abandoned"
        case State.STRANDED:
            return task.fault.reason == "stuck"
        case _:
            return False


def _refresh(task: Task, error: Fault, now: float, policy: Patience) -> Task:
    if task.refreshes + 1 >= policy.refreshes or _worn_out(task, now, policy):
        return _strand(task, error)
    wait = backoff(task.refreshes, base=1.0)
    return replace(task, state=RUNNING, due_at=now + wait, refreshes=task.refreshes + 1, failures=0, fault=error)


def _set_back(task: Task, event: Setback, now: float, policy: Patience) -> Task:
    match task.state:
        case State.SUBMITTING:
            return _not_accepted(task, event, now, policy)
        case State.IN_DOUBT:
            return _unclean(task, event, now, policy)
        case State.RUNNING if event.kind == "absent" and _is_unknown(task, policy):
            reason = f"the provider does not know {task.remote_id}, which was adopted for it"
            error = Fault("in_doubt", None, reason)
            return replace(task, state=HELD, due_at=None, remote_id=None, fault=error, evidence=reason)
        case _:
            return _again(task, event.fault, now, policy, wait=event.wait)


def _is_unknown(task: Task, policy: Patience) -> bool:
    """Return True if the provider never showed the id that an operator gave and has left it out too often."""
    return task.evidence.startswith(BY_PERSON) and task.failures + 1 >= policy.unknown


def _not_accepted(task: Task, event: Setback, now: float, policy: Patience) -> Task:
    task, counted = _refunded(task), event.kind == "trouble"
    attempts, throttles = task.attempts + counted, task.throttles + (not counted)
    if attempts >= policy.attempts or throttles >= policy.throttles:
        return replace(_fail(task, event.fault, now), attempts=attempts, throttles=throttles)
    wait = backoff(attempts) if counted else backoff(throttles) if event.kind == "window" else 0.0
    wait = max(wait, event.wait or 0.0)
    return replace(
        task, state=QUEUED, due_at=now + wait, attempts=attempts, throttles=throttles, sent=None, evidence=event.kind
    )


def _unclean(task: Task, event: Setback, now: float, policy: Patience) -> Task:
    failures = task.failures + 1
    wait = max(event.wait or 0.0, backoff(failures, cap=max(1.0, look_gap(policy))))
    return replace(task, failures=failures, due_at=None if failures >= policy.unclean else now + wait)


def _again(task: Task, error: Fault, now: float, policy: Patience, *, wait: float | None) -> Task:
    if _worn_out(task, now, policy):
        return _strand(task, error)
    failures = task.failures + 1
    return replace(task, failures=failures, fault=error, due_at=now + max(wait or 0.0, backoff(failures)))


def _blocked(task: Task, event: Blocked, now: float, policy: Patience) -> Task:
    match task.state:
        case State.SUBMITTING:
            task = _refunded(task)
            return replace(task, state=QUEUED, due_at=now, sent=None, fault=event.fault, evidence=event.kind)
        case State.IN_DOUBT:
            return replace(task, due_at=None, failures=task.failures + 1)
        case _:
            return _again(task, event.fault, now, policy, wait=None)


def _retry(task: Task, now: float, policy: Patience) -> Task:
    if task.state is FAILED and task.generation >= policy.generations:
        return task
    task = replace(task, due_at=now, since=now, failures=0, refreshes=0, fault=NO_FAULT, evidence="retried")
    if task.remote_id is not None and task.state in {STRANDED, DONE}:
        return replace(task, state=RUNNING)
    generation = task.generation + 1
    return replace(_anew(task), generation=generation, ref=f"{task.ref.rpartition('-g')[0]}-g{generation}")


def _resolve(task: Task, event: Resolved, now: float, policy: Patience) -> Task:
    reason = f"{event.verdict} by {event.by}"  # an adoption starts with ADOPTED_BY_USER
    if task.state is QUEUED and event.verdict == "adopt":
        task = _charged(task)  # bought after all, by a run that this state knows nothing of
    match event.verdict:
        case "adopt" if event.remote_id:
            return _adopt(task, event.remote_id, reason, now, policy, found=True)
        case "adopt":
            return task  # without an id there is nothing to adopt, and the table does not lead from HELD to HELD
        case "absent":
            # the same purchase under the same reference: the doubts are kept, so that an answer like Kling's 1201
            # ("the reference exists") is not taken for a plain rejection
            unpaid = task if task.state is QUEUED else _refunded(task)
            return replace(_anew(unpaid), due_at=now, doubts=task.doubts, evidence=reason)
        case "abandon":
            return replace(_fail(task, Fault("abandoned", None, reason), now), evidence=reason)


def _anew(task: Task) -> Task:
    task = replace(task, doubts=0, looks=0, attempts=0, throttles=0, finished_at=None)
    return replace(task, state=QUEUED, remote_id=None, adopted=False, sent=None, fault=NO_FAULT)


def _charged(task: Task) -> Task:
    """Add the price to `spent`. A purchase counts as spent before its request is sent."""
    return replace(task, spent=round(task.spent + (task.cost or 0.0), 6))


def _refunded(task: Task) -> Task:
    """Subtract the price from `spent` for a purchase that certainly costs nothing."""
    return replace(task, spent=max(0.0, round(task.spent - (task.cost or 0.0), 6)))


def _fail(task: Task, error: Fault, now: float) -> Task:
    return replace(task, state=FAILED, due_at=None, fault=error, finished_at=now)


def _strand(task: Task, error: Fault) -> Task:
    return replace(task, state=STRANDED, due_at=None, fault=error)


def _worn_out(task: Task, now: float, policy: Patience) -> bool:
    return task.since is not None and now - task.since > policy.paid
