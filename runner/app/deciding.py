"""`resolve`: record a user's decision on a held task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from runner.app import lanes
from runner.errors import ConfigError, StateError, UsageError
from runner.lifecycle.patience import Patience
from runner.lifecycle.task import State
from runner.lifecycle.transitions import BY_PERSON, advance
from runner.pipeline.clock import Clock
from runner.providers import spec as specs
from runner.providers.evidence import remote_id
from runner.store.claims import Claims
from runner.store.lock import job_lock
from runner.store.store import Store
from runner.store.view import view

if TYPE_CHECKING:
    from pathlib import Path

    from runner.lifecycle.events import Resolved
    from runner.lifecycle.task import Task
    from runner.settings import Settings

_CHECK = "Check the id at the provider."


def decide(directory: Path, key: str, event: Resolved, settings: Settings) -> dict[str, Any]:
    """Record a user's decision on one held task and return the object that `resolve --json` prints.

    Raises UsageError if the key or the id is invalid, StateError if the id belongs to another task or job.
    """
    state = directory / ".runner"
    if event.remote_id is not None and remote_id(event.remote_id) is None:
        raise UsageError(
            "this is no id of a provider", hint="1 to 128 of letters, digits and . _ : -, as its console shows it."
        )
    with view(state):  # raises NoSuchJob before anything is made
        pass
    with job_lock(state):
        return anyio.run(_decide, state, key, event, settings)


async def _decide(state: Path, key: str, event: Resolved, settings: Settings) -> dict[str, Any]:
    """Claim the decision's id for the account, then commit the transition."""
    store = await Store.open(state)
    try:
        task = await _held(store, key)
        clock = Clock()
        after = advance(task, event, clock.now(), Patience())
        if event.remote_id is not None and not await _claimed(store, task, event.remote_id, settings):
            raise StateError(f"{event.remote_id} belongs to another job of the account", hint=_CHECK)
        settled = await store.settle(task, after)
    finally:
        await store.aclose()
    if settled != "done":
        raise StateError(f"{event.remote_id} belongs to another task already", hint=_CHECK)
    effects = {"adopt": "the next run fetches it", "absent": "the next run buys it", "abandon": "nothing more happens"}
    return {
        "key": task.key,
        "state": str(after.state),
        "by": event.by,
        "warning": _warning(task, event, clock, settings),
        "next": effects[event.verdict],
    }


async def _claimed(store: Store, task: Task, remote_id: str, settings: Settings) -> bool:
    """Claim an id for this job, so that no other job adopts it.

    Returns False if another job has claimed it.
    Without credentials the account is unknown. Then the user's decision stands without a claim.
    """
    spec = specs.load(task.provider, settings.providers)
    if not spec.needs_claims:
        return True
    try:
        directory = lanes.home(spec, settings)
    except (ConfigError, UsageError):
        return True
    return await Claims(directory, store.uuid).take(remote_id)


def _warning(task: Task, event: Resolved, clock: Clock, settings: Settings) -> str | None:
    """Return a warning if a task is called absent while its request may still arrive.

    The user might then pay twice.
    """
    quiet = specs.load(task.provider, settings.providers).doubt if event.verdict == "absent" else 0.0
    age = clock.now() - (task.submitted_at or 0.0)
    return f"it was sent only {age:.0f} s ago and may still be accepted" if age < quiet else None


async def _held(store: Store, key: str) -> Task:
    """Return the held task that a key names.

    Raises UsageError if there is none.
    A task that is running by an earlier decision of a user may be decided again.
    """
    found = await store.by_key(key)
    if len(found) != 1:
        problem = "several tasks begin so" if found else "no task has that key"
        raise UsageError(f"{key}: {problem}", hint="`runner status` lists the held ones.")
    task = found[0]
    was_decided = task.state is State.RUNNING and task.evidence.startswith(BY_PERSON)
    if task.state is not State.HELD and not was_decided:
        raise UsageError(f"{key} is {task.state}, not held", hint="Only a held task waits for a person.")
    return task
