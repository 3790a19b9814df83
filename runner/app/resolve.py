"""`resolve`: record a user's decision on a held task."""

from __future__ import annotations

import time
from dataclasses import replace
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
from runner.tasks.remote_ids import MAX_BYTES, read_remote_id, show_remote_id
from runner.tasks.retry_policy import RetryPolicy
from runner.tasks.transitions import ADOPTED_BY_USER, advance

if TYPE_CHECKING:
    from pathlib import Path

    from runner.app.job import LoadedJob
    from runner.settings import Settings
    from runner.tasks.events import Resolved
    from runner.tasks.models import Task


_CHECK_HINT = "Check the id at the provider."


def resolve_task(directory: Path, key: str, event: Resolved, settings: Settings) -> dict[str, Any]:
    """Record a user's decision on one task, held or in doubt, and return the object that `resolve --json` prints.

    Raises UsageError if the key or the id is invalid, StateError if the id belongs to another task or job.
    """
    state = directory / ".runner"
    if event.remote_id is not None:
        remote_id = read_remote_id(event.remote_id)
        if remote_id is None:
            raise UsageError(
                "this is no id of a provider",
                hint=f"Up to {MAX_BYTES} bytes, as its console or `runner audit` shows it.",
            )
        event = replace(event, remote_id=remote_id)
    with open_read_only(state):  # raises NoSuchJob before anything is made
        pass
    with job_lock(state):
        return anyio.run(_resolve, state, key, event, settings)


async def _resolve(state: Path, key: str, event: Resolved, settings: Settings) -> dict[str, Any]:
    """Claim the decision's id for the account, then commit the transition."""
    store = await Store.open(state)
    try:
        task = await _held_task(store, key)
        clock = Clock()
        after = advance(task, event, clock.now(), RetryPolicy())
        if event.remote_id is not None and not await _claim_remote_id(store, task, event.remote_id, settings):
            raise StateError(
                f"{show_remote_id(event.remote_id)} belongs to another job of the account", hint=_CHECK_HINT
            )
        settled = await store.settle(task, after)
    finally:
        await store.aclose()
    if settled != "done":
        raise StateError(f"{show_remote_id(event.remote_id or '')} belongs to another task already", hint=_CHECK_HINT)
    effects = {"adopt": "the next run fetches it", "absent": "the next run buys it", "abandon": "nothing more happens"}
    return {
        "key": task.key,
        "state": str(after.state),
        "by": event.by,
        "warning": _early_absence_warning(task, event, clock, settings),
        "next": effects[event.resolution],
    }


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


def _early_absence_warning(task: Task, event: Resolved, clock: Clock, settings: Settings) -> str | None:
    """Return a warning if a task is called absent while its request may still arrive.

    The user might then pay twice.
    """
    quiet = specs.load(task.provider, settings.providers).doubt if event.resolution == "absent" else 0.0
    age = clock.now() - (task.submitted_at or 0.0)
    return f"it was sent only {age:.0f} s ago and may still be accepted" if age < quiet else None


async def _held_task(store: Store, key: str) -> Task:
    """Return the task, held or in doubt, that a key names.

    Raises UsageError if there is none.
    A task that is running by an earlier decision of a user may be decided again.
    """
    found = await store.find_by_key_prefix(key)
    if len(found) != 1:
        problem = "several tasks begin so" if found else "no task has that key"
        raise UsageError(f"{key}: {problem}", hint="`runner status` lists those that wait.")
    task = found[0]
    was_decided = task.state is State.RUNNING and task.reason.startswith(ADOPTED_BY_USER)
    if task.state not in {State.HELD, State.IN_DOUBT} and not was_decided:
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
