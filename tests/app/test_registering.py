"""Registration of runs with an account, and what the account then refuses."""

from __future__ import annotations

import shutil

import anyio
import pytest

from runner.app import registering
from runner.app.registering import enlist, remembered
from runner.errors import StateError, UsageError
from runner.store.registry import Registry
from runner.store.store import Store


async def _begin(state, registry, now=1.0):
    """Begin a run of the job and end it at once."""
    store = await Store.open(state)
    try:
        await store.add([], "digest", now)
        await enlist([registry], store, name="job", directory=str(state.parent), now=now, anew=False)
    finally:
        await store.aclose()


async def test_recorded_progress_reveals_an_old_copy(tmp_path, monkeypatch):
    """The copy was made during a run that was killed later. The account has recorded progress since."""
    monkeypatch.setattr(registering, "_HEARD", 0.01)
    registry, state, recorded = Registry(tmp_path / "home"), tmp_path / "job" / "state", anyio.Event()
    store = await Store.open(state)
    await store.add([], "digest", 1.0)
    await enlist([registry], store, name="job", directory=str(state.parent), now=1.0, anew=False)
    shutil.copytree(state, tmp_path / "copy")

    class RecordingRegistry(Registry):
        async def reach(self, uuid, mark):
            await super().reach(uuid, mark)
            recorded.set()

    async with remembered([RecordingRegistry(tmp_path / "home")], store):
        writer = store._writer
        await writer.transact(lambda _: writer.notes.append({"t": "later"}))
        recorded = anyio.Event()
        with anyio.fail_after(5):
            await recorded.wait()
        assert await registry.reached(store.uuid) == await store.mark()
    await store.aclose()
    shutil.rmtree(state)
    shutil.copytree(tmp_path / "copy", state)
    for _ in range(3):
        with pytest.raises(StateError, match="put back from a copy"):
            await _begin(state, registry)


async def test_same_job_may_run_any_number_of_times(tmp_path):
    registry, state = Registry(tmp_path / "home"), tmp_path / "job" / "state"
    for _ in range(3):
        await _begin(state, registry)
        store = await Store.open(state)  # a verb that buys nothing
        known = await registry.of(store.uuid)
        await store.aclose()
        assert known.directory == str(state.parent)
    assert await registry.reached(store.uuid) is not None


async def test_of_two_simultaneous_jobs_one_is_refused(tmp_path, monkeypatch):
    """FM4: if both checked before either was registered, neither would see the other."""
    registry, both, arrived = Registry(tmp_path / "home"), anyio.Event(), 0
    real = registering._alone

    async def alone(*arguments):
        nonlocal arrived
        arrived += 1
        if arrived == 2:
            both.set()
        await both.wait()
        await real(*arguments)

    monkeypatch.setattr(registering, "_alone", alone)
    stores = [await Store.open(tmp_path / name / "state") for name in ("one", "two")]
    refused = []

    async def begin(store, directory):
        try:
            await enlist([registry], store, name="job", directory=directory, now=1.0, anew=False)
        except UsageError as error:
            refused.append(error)

    for store in stores:
        await store._write("set_digest", digest="d", tasks="1" * 32, naming=None)
    async with anyio.create_task_group() as group:
        for number, store in enumerate(stores):
            group.start_soon(begin, store, f"/jobs/{number}")
    assert refused
    await registry.strike("nobody")
    assert len(await registry.like("1" * 32, 0.0)) == 2 - len(refused)
    for store in stores:
        await store.aclose()
