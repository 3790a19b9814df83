"""Asks, before a run buys anything, whether the job is what it says it is or has lost its memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import StateError, UsageError
from runner.store.registry import Entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.store.registry import Registry
    from runner.store.store import Store

#: seconds for which an unfinished job with the same tasks is remembered (faults.md FM4)
_WEEK = 7 * 86_400.0
_ANEW = "Or, to buy its tasks anew whatever was bought before, add --buy-again."


async def enlist(
    registries: Sequence[Registry], store: Store, *, name: str, directory: str, now: float, anew: bool
) -> Entry:
    """Write the run down for each account before anything is bought; raises StateError, UsageError.

    `directory` is its resolved path; `anew` is a person's word that what was bought before does not count.
    """
    entry = Entry(store.uuid, name, directory, await store.tasks(), store.epoch, now)
    for registry in registries:
        if anew:
            await registry.forget(entry.directory)
        else:
            await _check(registry, store, entry)
        await registry.put(entry)
    return entry


async def dismiss(registries: Sequence[Registry], entry: Entry) -> None:
    """The run has left nothing unfinished."""
    for registry in registries:
        await registry.put(replace(entry, open=0))


async def _check(registry: Registry, store: Store, entry: Entry) -> None:
    known = await registry.of(entry.uuid)
    if known is not None:
        _same(known, entry)
    elif not await store.ever_bought():
        await _new(registry, entry)


def _same(known: Entry, entry: Entry) -> None:
    """The job that this account knows, and not yesterday's copy of it, nor a second one beside it."""
    if known.epoch >= entry.epoch:
        raise StateError(
            f"{entry.directory}: {known.epoch} runs of this job were begun, and its state knows of {entry.epoch - 1}:"
            " it was put back from a copy, and what was bought since is not in it",
            hint=f"Put the latest state back; `runner audit` lists what the provider has. {_ANEW}",
        )
    other = Path(known.directory)
    if known.directory != entry.directory and (other / ".runner" / "state.db").exists():
        raise StateError(
            f"{entry.directory} is a copy of {other}, which is still there: each would buy what is left",
            hint=f"Go on in one of them, and move the other away. {_ANEW}",
        )


async def _new(registry: Registry, entry: Entry) -> None:
    """A job that nobody knows, where no other was, and with tasks that no other is at work on."""
    for known in await registry.at(entry.directory):
        raise StateError(
            f"{entry.directory}: the job {known.name!r} has bought here, and its state is gone",
            hint=f"Put its .runner back; `runner audit` lists what the provider has. {_ANEW}",
        )
    for known in await registry.like(entry.tasks, entry.began_at - _WEEK):
        raise UsageError(
            f"the same tasks are not finished in {known.directory} (job {known.name!r})",
            hint=f"Go on there: what it has bought would be bought twice. {_ANEW}",
        )
