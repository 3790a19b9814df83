"""Registration of runs with each account, so that a copied or reset job cannot buy its tasks twice.

A job's state may have been deleted, copied, or put back from an old copy. Each account keeps a registry of its jobs
and of how far their journals have come. A run compares itself with it before it buys anything.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner import logs
from runner.errors import RunnerError, StateError, UsageError
from runner.store.registry import Entry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from runner.store.registry import Registry
    from runner.store.store import Store

#: seconds between two records of a job's progress
_HEARD = 10.0
#: seconds for which an unfinished job blocks another job with the same tasks
_WEEK = 7 * 86_400.0
_ANEW = "Or, to buy its tasks anew whatever was bought before, add --buy-again."


async def enlist(
    registries: Sequence[Registry], store: Store, *, name: str, directory: str, now: float, anew: bool
) -> Entry:
    """Register the run with each account before anything is bought, and return its registry entry.

    `directory` is the job's resolved path. `buy_again` is the user's decision that earlier purchases do not count.
    Raises StateError if the job's state is a copy, is outdated or is gone, UsageError if another job has the same
    tasks and is not finished.
    """
    entry = Entry(store.uuid, name, directory, await store.tasks(), store.epoch, now)
    for registry in registries:
        if anew:
            await registry.forget(entry.directory)
        else:
            await _check(registry, store, entry)
        await registry.put(entry)
    await _reach(registries, store)
    return entry


@asynccontextmanager
async def remembered(registries: Sequence[Registry], store: Store) -> AsyncIterator[None]:
    """Record the job's progress with each account during the block and at its end, even after an error.

    A copy of the job that was made meanwhile is recognised by these records when it is put back.
    """
    recording = asyncio.create_task(_hear(registries, store))
    try:
        yield
    finally:
        recording.cancel()
        await asyncio.wait([recording])
        try:
            await _reach(registries, store)
        except RunnerError as error:
            logs.warn(f"the account was not told how far this job has come: {error.message}")


async def _hear(registries: Sequence[Registry], store: Store) -> None:
    """Record the job's progress at intervals until cancelled."""
    while True:
        await asyncio.sleep(_HEARD)
        with suppress(RunnerError):  # the next attempt is soon enough; a lasting error is logged at the end
            await _reach(registries, store)


async def _reach(registries: Sequence[Registry], store: Store) -> None:
    """Record the journal's current end with each account."""
    mark = await store.mark()
    if mark is None:
        return
    for registry in registries:
        await registry.reach(store.uuid, mark)


async def dismiss(registries: Sequence[Registry], entry: Entry) -> None:
    """Record that the run has left no task unfinished."""
    for registry in registries:
        await registry.put(replace(entry, open=0))


async def _check(registry: Registry, store: Store, entry: Entry) -> None:
    """Compare the job with its entry in the registry, or register it as new if it has never bought anything."""
    known = await registry.of(entry.uuid)
    if known is not None:
        mark = await registry.reached(entry.uuid)
        _same(known, entry, lost=mark is not None and await store.mark(mark.end) != mark)
    elif not await store.ever_bought():
        await _new(registry, entry)


def _same(known: Entry, entry: Entry, *, lost: bool) -> None:
    """Raise StateError if the state is an older copy of the registered job, or a second copy beside it.

    The number of runs alone does not show that: a copy may stem from the middle of a run, and each attempt to run the
    copy counts as a run. So `lost` says that the journal lacks the end that the account has recorded.
    """
    if lost or known.epoch >= entry.epoch:
        raise StateError(
            f"{entry.directory}: this job had come further than its state knows: it was put back from a copy,"
            " and what was bought since is not in it",
            hint=f"Put the latest state back; `runner audit` lists what the provider has. {_ANEW}",
        )
    other = Path(known.directory)
    if known.directory != entry.directory and (other / ".runner" / "state.db").exists():
        raise StateError(
            f"{entry.directory} is a copy of {other}, which is still there: each would buy what is left",
            hint=f"Go on in one of them, and move the other away. {_ANEW}",
        )


async def _new(registry: Registry, entry: Entry) -> None:
    """Register a job that the account does not know, unless another job stands in its way.

    The entry is written before the check. So of two jobs that begin at the same time, at least one sees the other.
    """
    await registry.put(entry)
    try:
        await _alone(registry, entry)
    except RunnerError:
        await registry.strike(entry.uuid)
        raise


async def _alone(registry: Registry, entry: Entry) -> None:
    """Raise StateError if another job bought in this directory, UsageError if one is at work on the same tasks."""
    for known in await registry.at(entry.directory):
        if known.uuid == entry.uuid:
            continue
        raise StateError(
            f"{entry.directory}: the job {known.name!r} has bought here, and its state is gone",
            hint=f"Put its .runner back; `runner audit` lists what the provider has. {_ANEW}",
        )
    for known in await registry.like(entry.tasks, entry.began_at - _WEEK):
        if known.uuid == entry.uuid:
            continue
        raise UsageError(
            f"the same tasks are not finished in {known.directory} (job {known.name!r})",
            hint=f"Go on there: what it has bought would be bought twice. {_ANEW}",
        )
