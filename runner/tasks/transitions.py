"""Decide which event may follow which state and how the event changes the task.

1. Only the step that cannot be repeated has an in-progress state: `submitting` is on disk before the request leaves.
2. A submit without a clear answer is in doubt. `Found` acts at once, `Missing` is believed only after the quiet time.
3. Every cycle uses up some of the retry policy, so every task comes to rest.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

from runner.errors import RunnerError
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
from runner.tasks.models import NO_ERROR, SUSPECTED, UNLISTED_STATE, State, Task, TaskError
from runner.tasks.remote_ids import show_remote_id
from runner.tasks.retry_policy import RetryPolicy, backoff, reconcile_interval, suspect_interval

if TYPE_CHECKING:
    from collections.abc import Mapping

QUEUED, SUBMITTING, IN_DOUBT, HELD = State.QUEUED, State.SUBMITTING, State.IN_DOUBT, State.HELD
RUNNING, READY, DONE = State.RUNNING, State.READY, State.DONE
FAILED, STRANDED = State.FAILED, State.STRANDED

#: prefix of `Task.reason` while a remote id given by an operator has not been confirmed by the provider
ADOPTED_BY_USER = "adopt by "
_CONFIRMED_BY_USER = "adopted by "

#: prefix of `Task.reason`, before a directory, of a task whose outputs another job of the account has paid for
BOUGHT_IN = "bought in "

#: `Task.reason` of a failure that costs nothing
_UNBILLED = "refused, and not billed"

#: state -> event -> possible next states, the usual one first
TRANSITIONS: Mapping[State, Mapping[type[Event], tuple[State, ...]]] = {
    QUEUED: {
        Claimed: (SUBMITTING,),
        Interrupted: (IN_DOUBT, HELD),
        Linked: (DONE, RUNNING),
        Resolved: (RUNNING, QUEUED, FAILED),
    },
    SUBMITTING: {
        Accepted: (RUNNING,),
        Interrupted: (IN_DOUBT, HELD),
        Suspected: (IN_DOUBT,),
        RetryableFailure: (QUEUED, FAILED),
        AccountBlocked: (QUEUED,),
        Rejected: (FAILED, IN_DOUBT, HELD),
    },
    IN_DOUBT: {
        Found: (RUNNING,),
        Missing: (IN_DOUBT, QUEUED, HELD, FAILED),
        RetryableFailure: (IN_DOUBT, HELD),
        AccountBlocked: (IN_DOUBT,),
        Resolved: (RUNNING, QUEUED, FAILED),
    },
    HELD: {Resolved: (RUNNING, QUEUED, FAILED)},
    RUNNING: {
        Finished: (READY,),
        Pending: (RUNNING, STRANDED),
        RetryableFailure: (RUNNING, STRANDED, HELD),
        AccountBlocked: (RUNNING, STRANDED),
        Rejected: (FAILED, STRANDED),
        Resolved: (RUNNING, QUEUED, FAILED),
    },
    READY: {Saved: (DONE,), LinkExpired: (RUNNING, STRANDED), RetryableFailure: (READY, STRANDED)},
    DONE: {Retried: (RUNNING, QUEUED)},
    FAILED: {Retried: (QUEUED, FAILED), Finished: (READY,)},
    STRANDED: {Retried: (RUNNING, QUEUED), Finished: (READY,)},
}

#: cost of each event that can be part of a cycle; without these events the table has no cycle (kept by a test)
EVENT_COSTS: Mapping[type[Event], str] = {
    RetryableFailure: "attempts, throttles, failed reconciles, or the time limit for paid tasks",
    AccountBlocked: "the account's credit with this run: nothing more is submitted",
    Missing: "reconciles, then submits or throttles",
    Pending: "the time limit for paid tasks",
    LinkExpired: "refreshes, or the time limit for paid tasks",
    Retried: "a decision of the user, or a run",
    Resolved: "a decision of the operator",
}


class IllegalTransitionError(RunnerError):
    """Event that the table does not allow in the task's state. It is a bug, never bad input."""


def is_linked(task: Task) -> bool:
    """Return whether another job of the account has paid for the task's outputs, so that this job has not."""
    return task.remote_id is not None and task.reason.startswith(BOUGHT_IN)


def advance(task: Task, event: Event, now: float, policy: RetryPolicy) -> Task:
    """Return the task as it is after the event, without any I/O.

    `now` is in seconds since the epoch. Raise IllegalTransitionError if the table does not allow the transition.
    """
    targets = TRANSITIONS[task.state].get(type(event), ())
    after = _decide(task, event, now, policy) if targets else task
    if after.state not in targets:
        raise IllegalTransitionError(f"{task.state} does not know {event!r} leading to {after.state} (task {task.key})")
    return after


def _decide(task: Task, event: Event, now: float, policy: RetryPolicy) -> Task:  # noqa: C901, PLR0911 - a table
    match event:
        case Claimed():
            task = replace(task, sent=event.moment, submitted_at=event.at, since=event.at)
            return replace(_charge(task), state=SUBMITTING, due_at=None)
        case Accepted():
            # why it was sent once more stays on record
            reason = task.reason if task.doubts and task.reason else event.reason
            return _adopt(task, event.remote_id, reason, now, policy, found=False)
        case Found():
            return _adopt(task, event.remote_id, event.reason, now, policy, found=True)
        case Interrupted():
            # bought by a run that this state knows nothing of, as it seems
            task = _charge(task) if task.state is QUEUED else task
            return _mark_in_doubt(task, event.reason, now, policy, hopeless=event.hopeless)
        case Missing():
            return _count_absence(task, event, now, policy)
        case Suspected():
            reason = f"{SUSPECTED}{event.error.code or event.error.reason}"
            due_at = now + suspect_interval(policy)
            return replace(
                task, state=IN_DOUBT, due_at=due_at, absences=0, failures=0, error=event.error, reason=reason
            )
        case Pending():
            return _keep_polling(task, event, now, policy)
        case Finished():
            return _take_outputs(task, event, now)
        case LinkExpired():
            return _renew_links(task, event, now, policy)
        case Saved():
            return replace(task, state=DONE, due_at=None, failures=0, outputs=event.outputs, error=event.error)
        case RetryableFailure():
            return _handle_failure(task, event, now, policy)
        case Rejected():
            if event.maybe_taken and task.doubts and task.state is SUBMITTING:
                return _mark_in_doubt(task, f"{event.error.code}: the reference may exist", now, policy)
            if task.state is RUNNING and task.finished_at is not None:
                # outputs that were shown once stay paid, whatever the provider reports later
                message = f"its outputs were there, and now the provider says: {event.error.message}"
                return _strand(task, TaskError("withdrawn", event.error.code, message))
            is_free = task.state is SUBMITTING or not (event.billed or is_linked(task))
            return _fail(replace(_refund(task), reason=_UNBILLED) if is_free else task, event.error, now)
        case AccountBlocked():
            return _handle_blocked(task, event, now, policy)
        case Linked():
            return _link(task, event, now)
        case Retried():
            return _retry(task, event, now, policy)
        case Resolved():
            return _resolve(task, event, now, policy)
    assert_never(event)


def _adopt(task: Task, remote_id: str, reason: str, now: float, policy: RetryPolicy, *, found: bool) -> Task:
    return replace(
        task,
        state=RUNNING,
        due_at=now + (0.0 if found else policy.first_poll),
        remote_id=remote_id,
        adopted=found,
        failures=0,
        absences=0,
        error=NO_ERROR,
        reason=reason,
    )


def _link(task: Task, event: Linked, now: float) -> Task:
    """Take over what another job has bought: its files, or, where they are gone, the id to fetch them by."""
    task = replace(
        task,
        remote_id=event.remote_id,
        adopted=True,
        sent=None,
        since=now,
        failures=0,
        absences=0,
        error=event.error,
        reason=f"{BOUGHT_IN}{event.bought_in}",
    )
    if not event.outputs:
        return replace(task, state=RUNNING, due_at=now)
    return replace(task, state=DONE, due_at=None, finished_at=now, outputs=event.outputs)


def _mark_in_doubt(task: Task, reason: str, now: float, policy: RetryPolicy, *, hopeless: bool = False) -> Task:
    state, due_at = (IN_DOUBT, now) if policy.can_reconcile and not hopeless else (HELD, None)
    error = TaskError("in_doubt", None, reason)
    return replace(
        task, state=state, due_at=due_at, doubts=task.doubts + 1, absences=0, failures=0, error=error, reason=reason
    )


def _count_absence(task: Task, event: Missing, now: float, policy: RetryPolicy) -> Task:
    absences, suspect = task.absences + 1, task.is_suspect
    # an answer has come to a suspect, so that its request is not under way: one reading tells as much as two
    if not event.quiet or (absences < policy.required_absences and not suspect):
        wait = suspect_interval(policy, absences) if suspect else reconcile_interval(policy)
        return replace(task, absences=absences, failures=0, due_at=now + wait)
    if task.doubts >= policy.max_doubts or not event.provable or not policy.can_reconcile:
        message = f"{task.doubts} sends without an answer, none of them found"
        if not event.provable or not policy.can_reconcile:
            reason = (
                f"and {event.why}" if event.why else "in a list that is not known to show requests as they were sent"
            )
            message = f"not found, {reason}"
        return _hold(replace(task, absences=absences), message)
    if not event.witnessed:
        message = f"not found, and {event.why}"
        if _patience_is_over(task, now, policy):
            return _hold(replace(task, absences=absences), message)
        error = task.error if suspect else TaskError("in_doubt", None, message)
        return replace(task, due_at=None, absences=absences, error=error)
    task = _refund(task) if event.refundable else task
    if suspect:
        return _believe_refusal(replace(task, absences=0, failures=0), event, now, policy)
    reason = event.why or "absent"
    return replace(task, state=QUEUED, due_at=now, absences=0, failures=0, error=NO_ERROR, reason=reason)


def _hold(task: Task, message: str) -> Task:
    """Leave a task to an operator. Of a suspect the message says how it was refused."""
    code = task.error.code if task.is_suspect else None
    text = f"refused with {code or task.error.reason}, {message}" if task.is_suspect else message
    error, doubts = TaskError("in_doubt", code, text), max(1, task.doubts)
    return replace(task, state=HELD, due_at=None, doubts=doubts, error=error)


def _believe_refusal(task: Task, event: Missing, now: float, policy: RetryPolicy) -> Task:
    """Return a suspect as its refusal would have left it, if it had been believed at once."""
    refusal = task.error
    match refusal.reason:
        case "throttled" | "window":
            throttles = task.throttles + 1
            if throttles >= policy.max_throttles:
                return replace(_fail(task, refusal, now), throttles=throttles)
            wait = backoff(throttles) if refusal.reason == "window" else 0.0
            task = replace(task, throttles=throttles, due_at=now + wait, error=NO_ERROR)
        case "credit" | "account":
            task = replace(task, due_at=now)
        case _:
            return _fail(replace(task, reason=_UNBILLED if event.refundable else event.why), refusal, now)
    return replace(task, state=QUEUED, sent=None, reason=event.why)


def _patience_is_over(task: Task, now: float, policy: RetryPolicy) -> bool:
    """Return True if what could settle a doubt has not come for so long that an operator must decide."""
    return now - (task.submitted_at or now) > policy.witness_patience


def _keep_polling(task: Task, event: Pending, now: float, policy: RetryPolicy) -> Task:
    failures = task.failures + 1 if event.settling else 0
    if event.settling and failures >= policy.max_settlings:
        trace = f" (trace {event.trace})" if event.trace else ""
        return _strand(task, TaskError("no_output", None, f"the provider claims success and shows no output{trace}"))
    if _deadline_passed(task, now, policy):
        return _strand(task, TaskError("stuck", None, f"still not finished after {policy.paid_timeout:.0f} s"))
    error = task.error
    if event.unknown_state:
        word = f"{event.remote_state!r} is not in its spec" if event.remote_state else "its answer names no state"
        error = TaskError(UNLISTED_STATE, event.remote_state or None, word)
        if event.overdue:
            why = f"{word}, and nothing else was said for {event.overdue:.0f} s, longer than such tasks take"
            return _strand(task, TaskError("stuck", event.remote_state or None, why))
    elif error.reason == UNLISTED_STATE:
        error = NO_ERROR
    reason = task.reason
    if reason.startswith(ADOPTED_BY_USER):
        reason = f"{_CONFIRMED_BY_USER}{reason.removeprefix(ADOPTED_BY_USER)}"
    return replace(task, failures=failures, reason=reason, error=error)


def _take_outputs(task: Task, event: Finished, now: float) -> Task:
    if _accepts_late_outputs(task):
        task = _charge(task) if task.reason == _UNBILLED else task
        reason = task.reason if is_linked(task) else "made after all"
        # the time limit starts again but the count of links does not, else a provider that keeps changing its answer
        # could keep the task alive without end
        task = replace(task, since=now, error=NO_ERROR, reason=reason)
    elif task.state is not RUNNING:
        return task
    if task.error.reason == UNLISTED_STATE:
        task = replace(task, error=NO_ERROR)
    return replace(task, state=READY, due_at=now, failures=0, outputs=event.outputs, finished_at=now)


def _accepts_late_outputs(task: Task) -> bool:
    """Return True if a task without outputs may still take them: it was accepted and never abandoned."""
    match task.state:
        case State.FAILED:
            return task.remote_id is not None and task.error.reason != "abandoned"
        case State.STRANDED:
            return task.error.reason == "stuck"
        case _:
            return False


def _renew_links(task: Task, event: LinkExpired, now: float, policy: RetryPolicy) -> Task:
    """Poll for a fresh link: a few times if links are dead, and as long as patience lasts if their host is away."""
    used_up = event.is_dead and task.refreshes + 1 >= policy.max_refreshes
    if used_up or _deadline_passed(task, now, policy):
        return _strand(task, event.error)
    wait = backoff(task.refreshes, cap=60.0 if event.is_dead else policy.longest_fetch_wait)
    return replace(task, state=RUNNING, due_at=now + wait, refreshes=task.refreshes + 1, failures=0, error=event.error)


def _handle_failure(task: Task, event: RetryableFailure, now: float, policy: RetryPolicy) -> Task:
    match task.state:
        case State.SUBMITTING:
            return _requeue(task, event, now, policy)
        case State.IN_DOUBT:
            return _retry_reconcile(task, event, now, policy)
        case State.RUNNING if event.kind == "absent" and task.reason.startswith(ADOPTED_BY_USER):
            if task.failures + 1 < policy.max_unknown:
                return _back_off(task, event.error, now, policy, wait=event.wait)
            reason = f"the provider does not know {show_remote_id(task.remote_id or '')}, which was adopted for it"
            error = TaskError("in_doubt", None, reason)
            return replace(task, state=HELD, due_at=None, remote_id=None, error=error, reason=reason)
        case State.RUNNING if event.kind == "absent" and is_linked(task) and task.failures + 1 >= policy.max_unknown:
            message = f"{task.reason}, where its files are gone, and the provider has it no more"
            return _strand(task, TaskError("gone", event.error.code, message))
        case _:
            return _back_off(task, event.error, now, policy, wait=event.wait)


def _requeue(task: Task, event: RetryableFailure, now: float, policy: RetryPolicy) -> Task:
    task, counted = _refund(task), event.kind == "trouble"
    attempts, throttles = task.attempts + counted, task.throttles + (not counted)
    if attempts >= policy.max_attempts or throttles >= policy.max_throttles:
        return replace(_fail(task, event.error, now), attempts=attempts, throttles=throttles)
    wait = backoff(attempts) if counted else backoff(throttles) if event.kind == "window" else 0.0
    wait = max(wait, event.wait or 0.0)
    reason = task.reason if task.doubts else event.kind
    return replace(
        task, state=QUEUED, due_at=now + wait, attempts=attempts, throttles=throttles, sent=None, reason=reason
    )


def _retry_reconcile(task: Task, event: RetryableFailure, now: float, policy: RetryPolicy) -> Task:
    failures = task.failures + 1
    wait = max(event.wait or 0.0, backoff(failures, cap=max(1.0, reconcile_interval(policy))))
    if failures >= policy.max_unclean and _patience_is_over(task, now, policy):
        why = event.error.message or event.error.reason
        days = policy.witness_patience / 86_400
        message = f"for {days:g} days the provider has given no answer that tells whether it was accepted: {why}"
        return _hold(replace(task, failures=failures), message)
    return replace(task, failures=failures, due_at=None if failures >= policy.max_unclean else now + wait)


def _back_off(task: Task, error: TaskError, now: float, policy: RetryPolicy, *, wait: float | None) -> Task:
    if _deadline_passed(task, now, policy):
        return _strand(task, error)
    failures = task.failures + 1
    return replace(task, failures=failures, error=error, due_at=now + max(wait or 0.0, backoff(failures)))


def _handle_blocked(task: Task, event: AccountBlocked, now: float, policy: RetryPolicy) -> Task:
    match task.state:
        case State.SUBMITTING:
            reason = task.reason if task.doubts else event.kind
            return replace(_refund(task), state=QUEUED, due_at=now, sent=None, error=event.error, reason=reason)
        case State.IN_DOUBT:
            return replace(task, due_at=None, failures=task.failures + 1)
        case _:
            return _back_off(task, event.error, now, policy, wait=None)


def _retry(task: Task, event: Retried, now: float, policy: RetryPolicy) -> Task:
    if task.state is FAILED and task.generation >= policy.max_generations:
        return task
    buys = event.anew and is_linked(task)
    # a linked task stays one that somebody else has paid for, however often its files are fetched again
    reason = task.reason if is_linked(task) and not buys and task.state is not FAILED else "retried"
    task = replace(task, due_at=now, since=now, failures=0, refreshes=0, error=NO_ERROR, reason=reason)
    if task.remote_id is not None and task.state in {STRANDED, DONE} and not buys:
        return replace(task, state=RUNNING, refreshes=policy.max_refreshes - 1 if event.is_brief else 0)
    generation = task.generation + 1
    return replace(_reset_for_submit(task), generation=generation, ref=f"{task.ref.rpartition('-g')[0]}-g{generation}")


def _resolve(task: Task, event: Resolved, now: float, policy: RetryPolicy) -> Task:
    reason = f"{event.resolution} by {event.by}"  # an adoption starts with ADOPTED_BY_USER
    if task.state is QUEUED and event.resolution == "adopt":
        task = _charge(task)  # bought after all, by a run that this state knows nothing of
    match event.resolution:
        case "adopt" if event.remote_id:
            return _adopt(task, event.remote_id, reason, now, policy, found=True)
        case "adopt":
            return task  # without an id there is nothing to adopt, and the table does not lead from HELD to HELD
        case "absent":
            # the same purchase under the same reference: the doubts are kept, so that an answer like Kling's 1201
            # ("the reference exists") is not taken for a plain rejection
            unpaid = task if task.state is QUEUED else _refund(task)
            return replace(_reset_for_submit(unpaid), due_at=now, doubts=task.doubts, reason=reason)
        case "abandon":
            return replace(_fail(task, TaskError("abandoned", None, reason), now), reason=reason)


def _reset_for_submit(task: Task) -> Task:
    task = replace(task, doubts=0, absences=0, attempts=0, throttles=0, finished_at=None)
    return replace(task, state=QUEUED, remote_id=None, adopted=False, sent=None, error=NO_ERROR)


def _charge(task: Task) -> Task:
    """Add the price to `spent`. A purchase counts as spent before its request is sent."""
    return replace(task, spent=round(task.spent + (task.cost or 0.0), 6))


def _refund(task: Task) -> Task:
    """Subtract the price from `spent` for a purchase that certainly costs nothing."""
    return replace(task, spent=max(0.0, round(task.spent - (task.cost or 0.0), 6)))


def _fail(task: Task, error: TaskError, now: float) -> Task:
    return replace(task, state=FAILED, due_at=None, error=error, finished_at=now)


def _strand(task: Task, error: TaskError) -> Task:
    return replace(task, state=STRANDED, due_at=None, error=error)


def _deadline_passed(task: Task, now: float, policy: RetryPolicy) -> bool:
    return task.since is not None and now - task.since > policy.paid_timeout
