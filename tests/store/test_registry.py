"""The account's register of its jobs and of its daily spending."""

from __future__ import annotations

import stat
from dataclasses import replace

import anyio
import pytest

from runner.errors import DiskError
from runner.store.registry import JobEntry, Registry

JOB = JobEntry("u1", "posters", "/jobs/out/posters", "aa", 1, 100.0)


async def test_job_is_found_by_uuid_and_directory(tmp_path):
    registry = Registry(tmp_path / "account")
    assert await registry.get("u1") is None
    await registry.put(JOB)
    await registry.put(replace(JOB, epoch=2))
    assert await registry.get("u1") == replace(JOB, epoch=2)
    assert await registry.find_by_directory("/jobs/out/posters") == [replace(JOB, epoch=2)]
    assert await registry.find_by_directory("/jobs/out") == []
    await registry.put(replace(JOB, uuid="u2", began_at=200.0))
    assert [entry.uuid for entry in await registry.entries()] == ["u2", "u1"]


async def test_directory_can_be_forgotten(tmp_path):
    registry = Registry(tmp_path)
    await registry.put(JOB)
    await registry.put(replace(JOB, uuid="u2", directory="/elsewhere"))
    await registry.forget_directory(JOB.directory)
    assert await registry.get("u1") is None
    assert await registry.get("u2") is not None


@pytest.mark.slow
async def test_all_jobs_share_the_daily_cap(tmp_path):
    """Twelve purchases at once through four registries: exactly ten fit."""
    registries = [Registry(tmp_path) for _ in range(4)]
    fitted = []

    async def buy(number):
        if await registries[number % 4].spend(1.0, "2026-11-21", 10.0):
            fitted.append(number)

    async with anyio.create_task_group() as group:
        for number in range(12):
            group.start_soon(buy, number)
    assert len(fitted) == 10
    assert await registries[0].spend(1.0, "2026-11-22", 10.0)


async def test_unspent_amount_is_returned(tmp_path):
    registry = Registry(tmp_path)
    assert await registry.spend(10.0, "d", 10.0)
    assert not await registry.spend(0.5, "d", 10.0)
    assert await registry.spend(-1.0, "d", 10.0)
    assert await registry.spend(0.5, "d", 10.0)
    assert await registry.spend(-100.0, "d", 10.0)
    assert await registry.spend(10.0, "d", 10.0)
    assert not await registry.spend(0.1, "d", 10.0)


async def test_registry_is_private(tmp_path):
    registry = Registry(tmp_path / "account")
    await registry.put(JOB)
    path = tmp_path / "account" / "jobs.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_unwritable_directory_is_a_disk_error(tmp_path):
    (tmp_path / "account").write_text("a file")
    with pytest.raises(DiskError, match="account"):
        await Registry(tmp_path / "account").put(JOB)
