"""A person's decision on a held task, written down with a name."""

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
    """Write a person's decision on one held task; raises UsageError, StateError."""
    state = directory / ".runner"
    if event.remote_id is not None and remote_id(event.remote_id) is None:
        raise UsageError(
            "this is no id of a provider", hint="1 to 128 of letters, digits and . _ : -, as its console shows it."
        )
    with view(state):
        pass
    with job_lock(state):
        return anyio.run(_decide, state, key, event, settings)


async def _decide(state: Path, key: str, event: Resolved, settings: Settings) -> dict[str, Any]:
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
    told = {"adopt": "the next run fetches it", "absent": "the next run buys it", "abandon": "nothing more happens"}
    return {
        "key": task.key,
        "state": str(after.state),
        "by": event.by,
        "warning": _warning(task, event, clock, settings),
        "next": told[event.verdict],
    }


async def _claimed(store: Store, task: Task, remote_id: str, settings: Settings) -> bool:
    """Make the id this job's, so that no look-up of another takes it for its own; False where another has it.

    Without the credentials nobody knows which account it is; then the person's word alone stands.
    """
    spec = specs.load(task.provider, settings.providers)
    if not spec.needs_claims:
        return True
    try:
        home = lanes.home(spec, settings)
    except (ConfigError, UsageError):
        return True
    return await Claims(home, store.uuid).take(remote_id)


def _warning(task: Task, event: Resolved, clock: Clock, settings: Settings) -> str | None:
    """A request may be under way for minutes: to call it absent before that may be to pay twice."""
    quiet = specs.load(task.provider, settings.providers).doubt if event.verdict == "absent" else 0.0
    age = clock.now() - (task.submitted_at or 0.0)
    return f"it was sent only {age:.0f} s ago and may still be accepted" if age < quiet else None


async def _held(store: Store, key: str) -> Task:
    found = await store.by_key(key)
    if len(found) != 1:
        many = "several tasks begin so" if found else "no task has that key"
        raise UsageError(f"{key}: {many}", hint="`runner status` lists the held ones.")
    given = found[0].state is State.RUNNING and found[0].evidence.startswith(BY_PERSON)
    if found[0].state is not State.HELD and not given:
        raise UsageError(f"{key} is {found[0].state}, not held", hint="Only a held task waits for a person.")
    return found[0]
