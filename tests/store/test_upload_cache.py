"""Uploads of an account are cached for all its jobs: one of them uploads, the others wait."""

from __future__ import annotations

import sys

import anyio
import pytest

from runner.errors import DiskError, StateError
from runner.store.upload_cache import CachedUpload, UploadCache

ONE = CachedUpload("ab" * 32, "f1", "https://files.example/1", 1000.0)


async def test_recent_upload_is_found_by_content(tmp_path):
    await UploadCache(tmp_path).put(ONE, 0.0)
    other = UploadCache(tmp_path)
    assert await other.find(ONE.sha256, 1000.0) == ONE
    assert await other.find(ONE.sha256, 1000.1) is None
    assert await other.find("cd" * 32, 0.0) is None


async def test_newer_upload_replaces_older_and_old_are_deleted(tmp_path):
    known = UploadCache(tmp_path)
    await known.put(ONE, 0.0)
    newer = CachedUpload(ONE.sha256, "f2", "https://files.example/2", 2000.0)
    await known.put(newer, 0.0)
    assert await known.find(ONE.sha256, 0.0) == newer
    await known.put(CachedUpload("cd" * 32, "f3", "https://files.example/3", 9000.0), 5000.0)
    assert await known.find(ONE.sha256, 0.0) is None


async def test_upload_files_are_private(tmp_path):
    home = tmp_path / "account"
    known = UploadCache(home)
    await known.put(ONE, 0.0)
    async with known.lock(ONE.sha256):
        pass
    assert home.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o077 for path in home.iterdir()} == {"uploads.db": 0, "upload-a.lock": 0}


async def test_one_process_uploads_a_content_at_a_time(tmp_path):
    at_once, most, done = 0, 0, []

    async def upload(number):
        nonlocal at_once, most
        async with UploadCache(tmp_path).lock(ONE.sha256):
            at_once += 1
            most = max(most, at_once)
            await anyio.sleep(0.01)
            at_once -= 1
            done.append(number)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(upload, number)
    assert (most, sorted(done)) == (1, [0, 1, 2])


async def test_another_content_does_not_wait(tmp_path):
    known = UploadCache(tmp_path)
    with anyio.fail_after(5):
        async with known.lock("ab" * 32), known.lock("cd" * 32):
            pass


HOLDER = """
import sys, anyio
from pathlib import Path
from runner.store.upload_cache import UploadCache
async def hold():
    async with UploadCache(Path(sys.argv[1])).lock("ab" * 32):
        print("held", flush=True)
        await anyio.sleep_forever()
anyio.run(hold)
"""


async def test_killed_process_releases_its_upload_lock(tmp_path):
    async with await anyio.open_process([sys.executable, "-c", HOLDER, str(tmp_path)]) as holder:
        try:
            with anyio.fail_after(30):
                assert (await holder.stdout.receive()).startswith(b"held")
            with anyio.move_on_after(0.3) as scope:
                async with UploadCache(tmp_path).lock("ab" * 32):
                    pass
            assert scope.cancelled_caught
        finally:
            holder.kill()
        await holder.wait()
        with anyio.fail_after(5):
            async with UploadCache(tmp_path).lock("ab" * 32):
                pass


async def test_damaged_cache_error_says_delete_it(tmp_path):
    (tmp_path / "uploads.db").write_bytes(b"no database" * 100)
    with pytest.raises(StateError) as caught:
        await UploadCache(tmp_path).find(ONE.sha256, 0.0)
    assert "Delete it" in caught.value.hint


async def test_unusable_home_is_a_disk_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError):
        await UploadCache(tmp_path / "file").find(ONE.sha256, 0.0)
