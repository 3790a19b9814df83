"""Asks, before a run buys anything, whether the job is what it says it is or has lost its memory."""

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

#: seconds between two times that an account hears how far a job has come
_HEARD = 10.0
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
    await _reach(registries, store)
    return entry


@asynccontextmanager
async def remembered(registries: Sequence[Registry], store: Store) -> AsyncIterator[None]:
    """For the length of the block each account hears how far the job has come, and at its end whatever ends it.

    A copy of the job that was made meanwhile is known by that when it is put back.
    """
    hearing = asyncio.create_task(_hear(registries, store))
    try:
        yield
    finally:
        hearing.cancel()
        await asyncio.wait([hearing])
        try:
            await _reach(registries, store)
        except RunnerError as error:
            logs.warn(f"the account was not told how far this job has come: {error.message}")


async def _hear(registries: Sequence[Registry], store: Store) -> None:
    while True:
        await asyncio.sleep(_HEARD)
        with suppress(RunnerError):  # the next time is soon enough; what lasts is told at the end
            await _reach(registries, store)


async def _reach(registries: Sequence[Registry], store: Store) -> None:
    mark = await store.mark()
    if mark is None:
        return
    for registry in registries:
        await registry.reach(store.uuid, mark)


async def dismiss(registries: Sequence[Registry], entry: Entry) -> None:
    """The run has left nothing unfinished."""
    for registry in registries:
        await registry.put(replace(entry, open=0))


async def _check(registry: Registry, store: Store, entry: Entry) -> None:
    known = await registry.of(entry.uuid)
    if known is not None:
        mark = await registry.reached(entry.uuid)
        _same(known, entry, lost=mark is not None and await store.mark(mark.end) != mark)
    elif not await store.ever_bought():
        await _new(registry, entry)


def _same(known: Entry, entry: Entry, *, lost: bool) -> None:
    """The job that this account knows, and not yesterday's copy of it, nor a second one beside it.

    Runs alone do not tell: a copy may be of the middle of one, and each try to run the copy is one more.
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
    """A job that nobody knows, where no other was, and with tasks that no other is at work on.

    It is written down first, so that of two that begin at once one sees the other.
    """
    await registry.put(entry)
    try:
        await _alone(registry, entry)
    except RunnerError:
        await registry.strike(entry.uuid)
        raise


async def _alone(registry: Registry, entry: Entry) -> None:
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
