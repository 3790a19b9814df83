"""`resolve`: record a user's decisions on tasks that are held or in doubt."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import anyio

from runner.app import provider_config
from runner.errors import ConfigError, StateError, UsageError
from runner.providers import spec as specs
from runner.scheduler.clock import Clock
from runner.store import rebuild
from runner.store.claims import Claims
from runner.store.lock import job_lock
from runner.store.read_only import open_read_only
from runner.store.store import Store
from runner.tasks.models import State
from runner.tasks.remote_ids import MAX_BYTES, read_remote_id, says_accepted, show_remote_id
from runner.tasks.retry_policy import RetryPolicy
from runner.tasks.transitions import ADOPTED_BY_USER, advance
from runner.text import pluralize, sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from runner.app.job import LoadedJob
    from runner.settings import Settings
    from runner.tasks.events import Resolved
    from runner.tasks.models import Task


_CHECK_HINT = "Check the id at the provider."
#: tasks that a message names
_MOST_NAMED = 3


def resolve_task(directory: Path, key: str, event: Resolved, settings: Settings) -> dict[str, Any]:
    """Record a user's decision on one task, held or in doubt, and return the object that `resolve --json` prints.

    Raises UsageError if the key or the id is invalid, StateError if the id belongs to another task or job.
    """
    found = resolve_tasks(directory, Choice(decisions=((key, event),)), settings)
    return found.resolved[0]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which tasks a user decides about, and how."""

    #: key, which may be shortened, and decision of single tasks
    decisions: Sequence[tuple[str, Resolved]] = ()
    #: decision about every task that waits for one
    every: Resolved | None = None
    #: text in what `status` shows of a task, to which `every` is limited
    reason: str | None = None


@dataclass(slots=True)
class Decided:
    """What became of a user's decisions: an object for each task, as `resolve --json` prints them."""

    resolved: list[dict[str, Any]] = field(default_factory=list)
    #: tasks in doubt that were left out, since their requests may still arrive
    too_early: int = 0
    #: tasks that were not called absent with all others, since an answer said that they were made
    accepted: int = 0


def resolve_tasks(
    directory: Path,
    choice: Choice,
    settings: Settings,
    *,
    confirm: Callable[[Sequence[Task]], None] = lambda _: None,
) -> Decided:
    """Record a user's decisions. Nothing is written unless every key and id is valid and `confirm` returns.

    Raises UsageError if one is not, or if none is to be decided; StateError if an id belongs to another task or job.
    """
    decisions = [(key, _with_id(key, event)) for key, event in choice.decisions]
    state = directory / ".runner"
    with open_read_only(state):  # raises NoSuchJob before anything is made
        pass
    with job_lock(state):
        return anyio.run(_resolve, state, decisions, choice, settings, confirm)


def _with_id(key: str, event: Resolved) -> Resolved:
    """Return a decision with its id as the provider has it. Raises UsageError if it is none."""
    if event.remote_id is None:
        return event
    remote_id = read_remote_id(event.remote_id)
    if remote_id is None:
        raise UsageError(
            f"{key}: this is no id of a provider",
            hint=f"Up to {MAX_BYTES} bytes, as its console or `runner audit` shows it.",
        )
    return replace(event, remote_id=remote_id)


async def _resolve(
    state: Path,
    decisions: Sequence[tuple[str, Resolved]],
    choice: Choice,
    settings: Settings,
    confirm: Callable[[Sequence[Task]], None],
) -> Decided:
    """Find every task, then claim each decision's id for the account and commit the transition."""
    store, clock, decided, refused = await Store.open(state), Clock(), Decided(), []
    try:
        if choice.every is None:
            chosen = [(await _waiting_task(store, key, event), event) for key, event in decisions]
        else:
            tasks = await _tasks_that_wait(store, choice.reason)
            early = {task.id for task in tasks if task.state is State.IN_DOUBT and _is_early(task, clock, settings)}
            chosen = [(task, choice.every) for task in tasks if task.id not in early]
            decided.too_early = len(early)
            if choice.every.resolution == "absent":
                chosen, held_all = [each for each in chosen if not says_accepted(each[0].reason)], len(chosen)
                decided.accepted = held_all - len(chosen)
        _refuse_repeated(chosen)
        confirm([task for task, _ in chosen])
        for task, event in chosen:
            after = advance(task, event, clock.now(), RetryPolicy())
            if event.remote_id is not None and not await _claim_remote_id(store, task, event.remote_id, settings):
                refused.append(f"{show_remote_id(event.remote_id)} belongs to another job of the account")
            elif await store.settle(task, after) != "done":
                refused.append(f"{show_remote_id(event.remote_id or '')} belongs to another task already")
            else:
                decided.resolved.append(
                    _decision_object(task, after, event, _early_warning(task, event, clock, settings))
                )
    finally:
        await store.aclose()
    if refused:
        others = f"; {pluralize(len(decided.resolved), 'other task')} decided" if decided.resolved else ""
        raise StateError(f"{first_few(refused)}{others}", hint=_CHECK_HINT)
    return decided


def _refuse_repeated(chosen: Sequence[tuple[Task, Resolved]]) -> None:
    """Raise UsageError if two decisions are about one task, or two tasks get one id."""
    for what, names in (
        ("is named twice", Counter(task.key for task, _ in chosen)),
        ("is given to two tasks", Counter(event.remote_id for _, event in chosen if event.remote_id is not None)),
    ):
        if repeated := [name for name, count in names.items() if count > 1]:
            raise UsageError(f"{show_remote_id(repeated[0])} {what}", hint="Decide once about each task.")


def _decision_object(task: Task, after: Task, event: Resolved, warning: str | None) -> dict[str, Any]:
    effects = {"adopt": "the next run fetches it", "absent": "the next run buys it", "abandon": "nothing more happens"}
    return {
        "key": task.key,
        "state": str(after.state),
        "by": event.by,
        "warning": warning,
        "next": effects[event.resolution],
    }


def first_few(texts: Sequence[str]) -> str:
    """Return the first three of many texts, and how many there are more."""
    more = f" and {len(texts) - _MOST_NAMED} more" if len(texts) > _MOST_NAMED else ""
    return f"{'; '.join(texts[:_MOST_NAMED])}{more}"


async def _claim_remote_id(store: Store, task: Task, remote_id: str, settings: Settings) -> bool:
    """Claim an id for this job, so that no other job adopts it.

    Returns False if another job has claimed it.
    Without credentials the account is unknown. Then the user's decision stands without a claim.
    """
    spec = specs.load(task.provider, settings.providers)
    if not spec.needs_claims:
        return True
    try:
        directory = provider_config.account_directory(spec, settings)
    except (ConfigError, UsageError):
        return True
    return await Claims(directory, store.uuid).claim_found(remote_id)


def _early_warning(task: Task, event: Resolved, clock: Clock, settings: Settings) -> str | None:
    """Return a warning if a task is called absent while its request may still arrive.

    The user might then pay twice.
    """
    if event.resolution != "absent" or not _is_early(task, clock, settings):
        return None
    return f"it was sent only {clock.now() - (task.submitted_at or 0.0):.0f} s ago and may still be accepted"


def _is_early(task: Task, clock: Clock, settings: Settings) -> bool:
    """Return True within the quiet time, while a request may still arrive."""
    return clock.now() - (task.submitted_at or 0.0) < specs.load(task.provider, settings.providers).doubt


async def _tasks_that_wait(store: Store, reason: str | None) -> list[Task]:
    """Return the tasks that wait for a user's decision, or may. Raises UsageError if there are none."""
    waiting = [*await store.in_state(State.HELD), *await store.in_state(State.IN_DOUBT)]
    if not waiting:
        raise UsageError("no task is held or in doubt", hint="There is nothing to decide.")
    if reason is None:
        return waiting
    found = [task for task in waiting if reason.casefold() in _evidence(task).casefold()]
    if not found:
        known = Counter(sanitize(_evidence(task), 80) for task in waiting).most_common()
        raise UsageError(
            f"no task waits for the reason {reason!r}",
            hint=f"What they wait for: {first_few([f'{text} ({count})' for text, count in known])}.",
        )
    return found


def _evidence(task: Task) -> str:
    return " ".join(part for part in (task.reason, task.error.code, task.error.message) if part)


async def _waiting_task(store: Store, key: str, event: Resolved) -> Task:
    """Return the task that a key names: held or in doubt, or, to adopt what was bought for it, one that is queued.

    Raises UsageError if there is none.
    A task that is running by an earlier decision of a user may be decided again.
    """
    found = await store.find_by_key_prefix(key)
    if len(found) != 1:
        problem = "several tasks begin so" if found else "no task has that key"
        raise UsageError(f"{key}: {problem}", hint="`runner status` lists those that wait.")
    task = found[0]
    was_decided = task.state is State.RUNNING and task.reason.startswith(ADOPTED_BY_USER)
    is_bought = task.state is State.QUEUED and event.resolution == "adopt"
    if task.state not in {State.HELD, State.IN_DOUBT} and not was_decided and not is_bought:
        raise UsageError(
            f"{key} is {task.state}, neither held nor in doubt", hint="Only such a task waits for a person."
        )
    return task


def recover(job: LoadedJob) -> dict[str, Any]:
    """Rebuild the database or the journal from the other, and return the object that `recover --json` prints.

    The old file is kept. Sends nothing.
    """
    with job_lock(job.state_directory):
        found = rebuild.recover(job.state_directory, job.additions(), time.time())
    return {
        "job": job.manifest.name,
        "directory": str(job.directory),
        "recovered": found.counts,
        "rebuilt": found.rebuilt,
    }
