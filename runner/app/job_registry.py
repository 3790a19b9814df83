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

from runner.errors import RunnerError, StateError
from runner.store.registry import JobEntry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from runner.store.journal import JournalMark
    from runner.store.registry import Registry
    from runner.store.store import Store

#: seconds between two records of a job's progress
_RECORD_INTERVAL = 10.0
#: way out for a state that may not be the newest
ADOPT_HINT = "`runner adopt-state` with the same manifest shows what differs, and lets it go on"
_BUY_AGAIN_HINT = "Or, to buy its tasks anew whatever was bought before, add --buy-again."


async def register_run(
    registries: Sequence[Registry],
    store: Store,
    *,
    name: str,
    directory: str,
    now: float,
    buy_again: bool,
    fenced: bool = False,
) -> JobEntry:
    """Register the run with each account before anything is bought, and return its registry entry.

    `directory` is the job's resolved path. `buy_again` is the user's decision that earlier purchases do not count. A
    `fenced` run, which buys nothing, is checked and not registered.
    Raises StateError if the job's state is a copy, is outdated or is gone.
    """
    entry = JobEntry(store.uuid, name, directory, await store.key_sum(), store.epoch, now)
    for registry in registries:
        if buy_again:
            await registry.forget_directory(entry.directory)
        else:
            await _check_known(registry, store, entry)
        if not fenced:
            # in this order: a process that dies between the two is still known by the journal that it had
            await _record_progress([registry], store)
            await registry.put(entry)
    return entry


async def adopt_entry(registries: Sequence[Registry], store: Store, *, name: str, directory: str, now: float) -> None:
    """Make the state the one that each account knows, as the user decided."""
    entry = JobEntry(store.uuid, name, directory, await store.key_sum(), store.epoch, now)
    for registry in registries:
        await _record_progress([registry], store)
        await registry.put(entry)


async def find_refusal(registries: Sequence[Registry], store: Store, *, directory: str) -> str:
    """Return why an account takes the state for a copy or an older one, or an empty string if none does."""
    if not await store.has_ever_sent():
        return ""
    entry = JobEntry(store.uuid, "", directory, "", store.epoch, 0.0)
    try:
        for registry in registries:
            await _check_known(registry, store, entry)
    except StateError as refusal:
        return refusal.message
    return ""


@asynccontextmanager
async def record_while_running(
    registries: Sequence[Registry], store: Store, on_warning: Callable[[str], None]
) -> AsyncIterator[None]:
    """Record the job's progress with each account during the block and at its end, even after an error.

    A copy of the job that was made meanwhile is recognised by these records when it is put back.
    """
    recording = asyncio.create_task(_record_repeatedly(registries, store))
    try:
        yield
    finally:
        recording.cancel()
        await asyncio.wait([recording])
        try:
            await _record_progress(registries, store)
        except RunnerError as error:
            on_warning(f"the account was not told how far this job has come: {error.message}")


async def _record_repeatedly(registries: Sequence[Registry], store: Store) -> None:
    """Record the job's progress at intervals until cancelled."""
    while True:
        await asyncio.sleep(_RECORD_INTERVAL)
        with suppress(RunnerError):  # the next attempt is soon enough; a lasting error is logged at the end
            await _record_progress(registries, store)


async def _record_progress(registries: Sequence[Registry], store: Store) -> None:
    """Record the journal's current end with each account."""
    mark = await store.journal_mark()
    if mark is None:
        return
    for registry in registries:
        await registry.set_journal_mark(store.uuid, mark)


async def mark_finished(registries: Sequence[Registry], entry: JobEntry) -> None:
    """Record that the run has left no task unfinished."""
    for registry in registries:
        await registry.put(replace(entry, unfinished=0))


async def _check_known(registry: Registry, store: Store, entry: JobEntry) -> None:
    """Compare the job with its entry in the registry, or register it as new if it has never bought anything."""
    known = await registry.get(entry.uuid)
    if known is not None:
        mark = await registry.get_journal_mark(entry.uuid)
        _check_same_job(known, entry, lost=mark is not None and not await _has_reached(store, known, mark))
    elif not await store.has_ever_sent():
        await _register_new_job(registry, entry)


async def _has_reached(store: Store, known: JobEntry, mark: JournalMark) -> bool:
    """Return whether the job's journal holds the mark, or was written from a database that knew everything up to it."""
    if await store.journal_mark(mark.end) == mark:
        return True
    rebuilt = await store.rebuilt_journal()
    return rebuilt is not None and rebuilt.replaces(store.uuid, mark, known.epoch)


def _check_same_job(known: JobEntry, entry: JobEntry, *, lost: bool) -> None:
    """Raise StateError if the state is an older copy of the registered job, or a second copy beside it.

    The number of runs alone does not show that: a copy may stem from the middle of a run, and each attempt to run the
    copy counts as a run. So `lost` says that the journal lacks the end that the account has recorded.
    """
    if lost or known.epoch >= entry.epoch:
        raise StateError(
            f"{entry.directory}: this job had come further than its state knows: it was put back from a copy,"
            " and what was bought since is not in it",
            hint=f"Put the latest state back; `runner audit` lists what the provider has. Or: {ADOPT_HINT}.",
        )
    other = Path(known.directory)
    if known.directory != entry.directory and (other / ".runner" / "state.db").exists():
        raise StateError(
            f"{entry.directory} is a copy of {other}, which is still there: each would buy what is left",
            hint=f"Go on in one of them, and move the other away. Or: {ADOPT_HINT}.",
        )


async def _register_new_job(registry: Registry, entry: JobEntry) -> None:
    """Register a job that the account does not know, unless another job stands in its way.

    What other jobs have bought of the same tasks is found by `app.earlier_purchases`.
    """
    await registry.put(entry)
    try:
        await _check_no_other_job(registry, entry)
    except RunnerError:
        await registry.remove(entry.uuid)
        raise


async def _check_no_other_job(registry: Registry, entry: JobEntry) -> None:
    """Raise StateError if another job bought in this directory, and its state is not there any more."""
    for known in await registry.find_by_directory(entry.directory):
        if known.uuid == entry.uuid:
            continue
        raise StateError(
            f"{entry.directory}: the job {known.name!r} has bought here, and its state is gone",
            hint=f"Put its .runner back; `runner audit` lists what the provider has. {_BUY_AGAIN_HINT}",
        )
