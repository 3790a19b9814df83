"""The rules: which event may follow which state, and what becomes of the task.

1. Only the step that cannot be repeated has an in-progress state: `submitting` is on disk before the request leaves.
2. A submit without a clear answer is in doubt. Found acts at once; missing is believed only after the quiet time.
3. Every circle costs patience, so every task comes to rest.
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

#: how the evidence of an id begins that a person gave and the provider has not shown yet
BY_PERSON = "adopt by "

#: the evidence of a failure that costs nothing
_FREE = "refused, and not billed"

#: state -> event -> the states it may lead to, the usual one first
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

#: what each repeatable event costs; without these events the table has no circle (a test says so)
COUNTED: Mapping[type[Event], str] = {
    Setback: "attempts, throttles, unclean look-ups, or the time for what is paid",
    Blocked: "the account's credit with this run: nothing more is submitted",
    Missing: "look-ups, then sends",
    Pending: "the time for what is paid",
    LinkExpired: "refreshes",
    Retried: "a person's word",
    Resolved: "a person's word",
}


class IllegalTransition(RunnerError):  # noqa: N818 - reads as what it says
    """An event came in a state that the table does not know it in: a bug, never bad input."""


def advance(task: Task, event: Event, now: float, patience: Patience) -> Task:
    """What becomes of the task; `now` in seconds since the epoch, raises IllegalTransition."""
    ways = TRANSITIONS[task.state].get(type(event), ())
    after = _decide(task, event, now, patience) if ways else task
    if after.state not in ways:
        raise IllegalTransition(f"{task.state} does not know {event!r} leading to {after.state} (task {task.key})")
    return after


def _decide(task: Task, event: Event, now: float, patience: Patience) -> Task:  # noqa: C901, PLR0911, PLR0912 - a table
    match event:
        case Claimed():
            task = replace(task, sent=event.moment, submitted_at=event.at, since=event.at)
            return replace(_charged(task), state=SUBMITTING, due_at=None)
        case Accepted() | Found():
            return _adopt(task, event.remote_id, event.evidence, now, patience, found=isinstance(event, Found))
        case Interrupted():
            return _doubt(task, event.evidence, now, patience, hopeless=event.hopeless)
        case Missing():
            return _missing(task, event, now, patience)
        case Pending():
            return _pending(task, event, now, patience)
        case Finished():
            return _finish(task, event, now)
        case LinkExpired():
            return _refresh(task, event.fault, now, patience)
        case Saved():
            return replace(task, state=DONE, due_at=None, failures=0, outputs=event.outputs, fault=event.fault)
        case Setback():
            return _set_back(task, event, now, patience)
        case Refused():
            if event.maybe_taken and task.doubts and task.state is SUBMITTING:
                return _doubt(task, f"{event.fault.code}: the reference may exist", now, patience)
            if task.state is RUNNING and task.finished_at is not None:
                return _strand(task, _withdrawn(event.fault))
            free = task.state is SUBMITTING or not event.billed
            return _fail(replace(_refunded(task), evidence=_FREE) if free else task, event.fault, now)
        case Blocked():
            return _blocked(task, event, now, patience)
        case Retried():
            return _retry(task, now, patience)
        case Resolved():
            return _resolve(task, event, now, patience)
    assert_never(event)


def _adopt(task: Task, remote_id: str, evidence: str, now: float, patience: Patience, *, found: bool) -> Task:
    return replace(
        task,
        state=RUNNING,
        due_at=now + (0.0 if found else patience.first_look),
        remote_id=remote_id,
        adopted=found,
        failures=0,
        looks=0,
        fault=NO_FAULT,
        evidence=evidence,
    )


def _doubt(task: Task, evidence: str, now: float, patience: Patience, *, hopeless: bool = False) -> Task:
    state, due_at = (IN_DOUBT, now) if patience.can_look_up and not hopeless else (HELD, None)
    fault = Fault("in_doubt", None, evidence)
    return replace(
        task, state=state, due_at=due_at, doubts=task.doubts + 1, looks=0, failures=0, fault=fault, evidence=evidence
    )


def _missing(task: Task, event: Missing, now: float, patience: Patience) -> Task:
    looks = task.looks + 1
    if not event.quiet or looks < patience.looks:
        return replace(task, looks=looks, failures=0, due_at=now + look_gap(patience))
    if task.doubts >= patience.sends or not event.provable:
        why = f"{task.doubts} sends without an answer, none of them found"
        why = why if event.provable else "not found, in a list that is not known to show requests as they were sent"
        return replace(task, state=HELD, due_at=None, looks=looks, fault=Fault("in_doubt", None, why))
    task = _refunded(task)
    return replace(task, state=QUEUED, due_at=now, looks=0, failures=0, fault=NO_FAULT, evidence="absent")


def _pending(task: Task, event: Pending, now: float, patience: Patience) -> Task:
    failures = task.failures + 1 if event.settling else 0
    if event.settling and failures >= patience.settlings:
        trace = f" (trace {event.trace})" if event.trace else ""
        return _strand(task, Fault("no_output", None, f"the provider claims success and shows no output{trace}"))
    if _worn_out(task, now, patience):
        return _strand(task, Fault("stuck", None, f"still not finished after {patience.paid:.0f} s"))
    return replace(task, failures=failures, evidence=_seen(task))


def _finish(task: Task, event: Finished, now: float) -> Task:
    if _may_be_late(task):
        task = _charged(task) if task.evidence == _FREE else task
        # patience begins anew; refreshes do not, or a provider of two minds could go on for ever
        task = replace(task, since=now, fault=NO_FAULT, evidence="made after all")
    elif task.state is not RUNNING:
        return task
    return replace(task, state=READY, due_at=now, failures=0, outputs=event.outputs, finished_at=now)


def _withdrawn(fault: Fault) -> Fault:
    """A provider that has shown outputs once was paid for them, whatever it says of the task later (I8)."""
    return Fault("withdrawn", fault.code, f"its outputs were there, and now the provider says: {fault.message}")


def _may_be_late(task: Task) -> bool:
    """Whether outputs of what has nothing to show are still ours to take: it was accepted, and no one gave it up."""
    match task.state:
        case State.FAILED:
            return task.remote_id is not None and task.fault.reason != "abandoned"
        case State.STRANDED:
            return task.fault.reason == "stuck"
        case _:
            return False


def _seen(task: Task) -> str:
    """What the state rests on, once the provider has shown the task."""
    return "seen" if task.evidence.startswith(BY_PERSON) else task.evidence


def _refresh(task: Task, fault: Fault, now: float, patience: Patience) -> Task:
    if task.refreshes + 1 >= patience.refreshes or _worn_out(task, now, patience):
        return _strand(task, fault)
    wait = backoff(task.refreshes, base=1.0)
    return replace(task, state=RUNNING, due_at=now + wait, refreshes=task.refreshes + 1, failures=0, fault=fault)


def _set_back(task: Task, event: Setback, now: float, patience: Patience) -> Task:
    match task.state:
        case State.SUBMITTING:
            return _not_accepted(task, event, now, patience)
        case State.IN_DOUBT:
            return _unclean(task, event, now, patience)
        case State.RUNNING if event.kind == "absent" and _is_unknown(task, patience):
            why = f"the provider does not know {task.remote_id}, which was adopted for it"
            return replace(
                task, state=HELD, due_at=None, remote_id=None, fault=Fault("in_doubt", None, why), evidence=why
            )
        case _:
            return _again(task, event.fault, now, patience, wait=event.wait)


def _is_unknown(task: Task, patience: Patience) -> bool:
    """An id that a person gave, that the provider has never shown, and that it leaves out again and again."""
    return task.evidence.startswith(BY_PERSON) and task.failures + 1 >= patience.unknown


def _not_accepted(task: Task, event: Setback, now: float, patience: Patience) -> Task:
    task, counted = _refunded(task), event.kind == "trouble"
    attempts, throttles = task.attempts + counted, task.throttles + (not counted)
    if attempts >= patience.attempts or throttles >= patience.throttles:
        return replace(_fail(task, event.fault, now), attempts=attempts, throttles=throttles)
    wait = backoff(attempts) if counted else backoff(throttles) if event.kind == "window" else 0.0
    wait = max(wait, event.wait or 0.0)
    return replace(
        task, state=QUEUED, due_at=now + wait, attempts=attempts, throttles=throttles, sent=None, evidence=event.kind
    )


def _unclean(task: Task, event: Setback, now: float, patience: Patience) -> Task:
    failures = task.failures + 1
    wait = max(event.wait or 0.0, backoff(failures, cap=max(1.0, look_gap(patience))))
    return replace(task, failures=failures, due_at=None if failures >= patience.unclean else now + wait)


def _again(task: Task, fault: Fault, now: float, patience: Patience, *, wait: float | None) -> Task:
    if _worn_out(task, now, patience):
        return _strand(task, fault)
    failures = task.failures + 1
    return replace(task, failures=failures, fault=fault, due_at=now + max(wait or 0.0, backoff(failures)))


def _blocked(task: Task, event: Blocked, now: float, patience: Patience) -> Task:
    match task.state:
        case State.SUBMITTING:
            task = _refunded(task)
            return replace(task, state=QUEUED, due_at=now, sent=None, fault=event.fault, evidence=event.kind)
        case State.IN_DOUBT:
            return replace(task, due_at=None, failures=task.failures + 1)
        case _:
            return _again(task, event.fault, now, patience, wait=None)


def _retry(task: Task, now: float, patience: Patience) -> Task:
    if task.state is FAILED and task.generation >= patience.generations:
        return task
    task = replace(task, due_at=now, since=now, failures=0, refreshes=0, fault=NO_FAULT, evidence="retried")
    if task.remote_id is not None and task.state in {STRANDED, DONE}:
        return replace(task, state=RUNNING)
    generation = task.generation + 1
    return replace(_anew(task), generation=generation, ref=f"{task.ref.rpartition('-g')[0]}-g{generation}")


def _resolve(task: Task, event: Resolved, now: float, patience: Patience) -> Task:
    by = f"{event.verdict} by {event.by}"  # begins as BY_PERSON says
    if task.state is QUEUED and event.verdict == "adopt":
        task = _charged(task)  # it was bought after all, by a run that this state knows nothing of
    match event.verdict:
        case "adopt" if event.remote_id:
            return _adopt(task, event.remote_id, by, now, patience, found=True)
        case "adopt":
            return task  # without an id there is nothing to adopt, and HELD is no way out of HELD
        case "absent":
            # the same purchase under the same reference: its doubts count on, so that 1201 is not taken for a refusal
            free = task if task.state is QUEUED else _refunded(task)
            return replace(_anew(free), due_at=now, doubts=task.doubts, evidence=by)
        case "abandon":
            return replace(_fail(task, Fault("abandoned", None, by), now), evidence=by)


def _anew(task: Task) -> Task:
    task = replace(task, doubts=0, looks=0, attempts=0, throttles=0, finished_at=None)
    return replace(task, state=QUEUED, remote_id=None, adopted=False, sent=None, fault=NO_FAULT)


def _charged(task: Task) -> Task:
    """What is about to be bought counts as spent before it is sent."""
    return replace(task, spent=round(task.spent + (task.cost or 0.0), 6))


def _refunded(task: Task) -> Task:
    """This purchase certainly costs nothing."""
    return replace(task, spent=max(0.0, round(task.spent - (task.cost or 0.0), 6)))


def _fail(task: Task, fault: Fault, now: float) -> Task:
    return replace(task, state=FAILED, due_at=None, fault=fault, finished_at=now)


def _strand(task: Task, fault: Fault) -> Task:
    return replace(task, state=STRANDED, due_at=None, fault=fault)


def _worn_out(task: Task, now: float, patience: Patience) -> bool:
    return task.since is not None and now - task.since > patience.paid
