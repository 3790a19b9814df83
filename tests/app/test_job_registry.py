"""Registration of runs with an account, and what the account then refuses."""

from __future__ import annotations

import shutil

import anyio
import pytest

from runner.app import job_registry
from runner.app.job_registry import record_while_running, register_run
from runner.errors import StateError
from runner.store.registry import Registry
from runner.store.store import Store


async def _begin(state, registry, now=1.0):
    """Begin a run of the job and end it at once."""
    store = await Store.open(state)
    try:
        await store.add([], "digest", now)
        await register_run([registry], store, name="job", directory=str(state.parent), now=now, buy_again=False)
    finally:
        await store.aclose()


async def test_recorded_progress_reveals_an_old_copy(tmp_path, monkeypatch):
    """The copy was made during a run that was killed later. The account has recorded progress since."""
    monkeypatch.setattr(job_registry, "_RECORD_INTERVAL", 0.01)
    registry, state, recorded = Registry(tmp_path / "home"), tmp_path / "job" / "state", anyio.Event()
    store = await Store.open(state)
    await store.add([], "digest", 1.0)
    await register_run([registry], store, name="job", directory=str(state.parent), now=1.0, buy_again=False)
    shutil.copytree(state, tmp_path / "copy")

    class RecordingRegistry(Registry):
        async def set_journal_mark(self, uuid, mark):
            await super().set_journal_mark(uuid, mark)
            recorded.set()

    async with record_while_running([RecordingRegistry(tmp_path / "home")], store, print):
        writer = store._writer
        await writer.transact(lambda _: writer.journal_lines.append({"t": "later"}))
        recorded = anyio.Event()
        with anyio.fail_after(5):
            await recorded.wait()
        assert await registry.get_journal_mark(store.uuid) == await store.journal_mark()
    await store.aclose()
    shutil.rmtree(state)
    shutil.copytree(tmp_path / "copy", state)
    for _ in range(3):
        with pytest.raises(StateError, match="put back from a copy"):
            await _begin(state, registry)


@pytest.mark.slow
async def test_same_job_may_run_any_number_of_times(tmp_path):
    registry, state = Registry(tmp_path / "home"), tmp_path / "job" / "state"
    for _ in range(3):
        await _begin(state, registry)
        store = await Store.open(state)  # a verb that buys nothing
        known = await registry.get(store.uuid)
        await store.aclose()
        assert known.directory == str(state.parent)
    assert await registry.get_journal_mark(store.uuid) is not None


async def test_of_two_simultaneous_jobs_one_is_refused(tmp_path, monkeypatch):
    """Both begin in one directory. If both checked before either was registered, neither would see the other."""
    registry, both, arrived = Registry(tmp_path / "home"), anyio.Event(), 0
    real = job_registry._check_no_other_job

    async def alone(*arguments):
        nonlocal arrived
        arrived += 1
        if arrived == 2:
            both.set()
        await both.wait()
        await real(*arguments)

    monkeypatch.setattr(job_registry, "_check_no_other_job", alone)
    stores = [await Store.open(tmp_path / name / "state") for name in ("one", "two")]
    refused = []

    async def begin(store, directory):
        try:
            await register_run([registry], store, name="job", directory=directory, now=1.0, buy_again=False)
        except StateError as error:
            refused.append(error)

    for store in stores:
        await store._execute("set_digest", digest="d", tasks="1" * 32, naming=None)
    async with anyio.create_task_group() as group:
        for store in stores:
            group.start_soon(begin, store, "/jobs/1")
    assert refused
    await registry.remove("nobody")
    assert len(await registry.entries()) == 2 - len(refused)
    for store in stores:
        await store.aclose()
