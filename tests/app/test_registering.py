"""What an account is told of a run, and what it makes of it."""

from __future__ import annotations

import shutil

import anyio
import pytest

from runner.app import registering
from runner.app.registering import enlist, remembered
from runner.errors import StateError, UsageError
from runner.store.registry import Registry
from runner.store.store import Store


async def _begin(place, registry, now=1.0):
    """A run of the job in a directory begins, and ends at once."""
    store = await Store.open(place)
    try:
        await store.add([], "digest", now)
        await enlist([registry], store, name="job", directory=str(place.parent), now=now, anew=False)
    finally:
        await store.aclose()


async def test_a_copy_of_a_run_that_was_killed_is_known_by_what_the_account_heard_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setattr(registering, "_HEARD", 0.01)
    registry, place, told = Registry(tmp_path / "home"), tmp_path / "job" / "state", anyio.Event()
    store = await Store.open(place)
    await store.add([], "digest", 1.0)
    await enlist([registry], store, name="job", directory=str(place.parent), now=1.0, anew=False)
    shutil.copytree(place, tmp_path / "copy")

    class Hearing(Registry):
        async def reach(self, uuid, mark):
            await super().reach(uuid, mark)
            told.set()

    async with remembered([Hearing(tmp_path / "home")], store):
        writer = store._writer
        await writer.transact(lambda _: writer.notes.append({"t": "later"}))
        told = anyio.Event()
        with anyio.fail_after(5):
            await told.wait()
        assert await registry.reached(store.uuid) == await store.mark()
    await store.aclose()
    shutil.rmtree(place)
    shutil.copytree(tmp_path / "copy", place)
    for _ in range(3):
        with pytest.raises(StateError, match="put back from a copy"):
            await _begin(place, registry)


async def test_the_job_itself_goes_on_however_often_it_was_begun(tmp_path):
    registry, place = Registry(tmp_path / "home"), tmp_path / "job" / "state"
    for _ in range(3):
        await _begin(place, registry)
        store = await Store.open(place)  # a verb that buys nothing
        known = await registry.of(store.uuid)
        await store.aclose()
        assert known.directory == str(place.parent)
    assert await registry.reached(store.uuid) is not None


async def test_of_two_that_begin_at_once_no_two_buy_the_same(tmp_path, monkeypatch):
    """FM4: both look before either is written down, and neither would see the other."""
    registry, both, looking = Registry(tmp_path / "home"), anyio.Event(), 0
    real = registering._alone

    async def alone(*words):
        nonlocal looking
        looking += 1
        if looking == 2:
            both.set()
        await both.wait()
        await real(*words)

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
