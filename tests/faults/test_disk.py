"""FD1 to FD4: a disk that is full, read-only or broken."""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource

import pytest

from runner.errors import StateError
from runner.store.journal import read_lines
from tests.faults import sick_sqlite
from tests.faults import small_disk as disks
from tests.faults.chain import chain
from tests.faults.conftest import FAST, ended, images, reaches, sandbox
from tests.faults.small_disk import small_disk

needs_disk = pytest.mark.skipif(bool(disks.refused()), reason=disks.refused() or "-")
MIB = 2**20
#: above the low-water mark
PLENTY = 512 * MIB


@pytest.fixture
def full(rig):
    """Return a rig whose outputs and state are on a small disk, and that disk."""
    with small_disk(rig.root / "out") as disk:
        rig.seen, rig.inside = disk.seen, disk.enter(rig.root)
        yield rig, disk
        rig.tidy()


# no free space


@pytest.mark.slow
@needs_disk
def test_fd01_unwritten_intent_is_not_sent_and_ids_are_saved(full):
    """The ballast is released for the ids of paid tasks, and nothing more is bought."""
    rig, disk = full
    rig.write("job.yaml", images(8, qps=10))
    with sandbox(*FAST) as box:
        process = rig.start("run", "job.yaml", "--json", env=box.env)
        reaches(process, lambda: box.stats["accepted"] >= 3)
        disk.leave(0)
        code, _, err = ended(process)
        assert (code, "Traceback" in err, "EMERGENCY" in err) == (14, False, False), err
        bought = box.stats["accepted"]
        assert 3 <= bought < 8
        assert not (rig.state / "ballast").exists()
        # a transaction that found no space is written once more, with its lines
        assert len({line["remote_id"] for line in rig.journal if line["t"] == "id"}) == bought
        disk.leave(PLENTY)
        rig.finishes(box, 8)


@pytest.mark.slow
@needs_disk
def test_fd01_id_that_cannot_be_saved_is_printed(full):
    """The ballast is gone already. If the provider cannot be queried, the line on stderr is the only record."""
    rig, disk = full
    rig.write("job.yaml", images(3, provider="kling-gateway", model="image/kling-v1-5"))
    with sandbox(*FAST, "--fault", "slow_reply=@2,3", "--slow-s", "1") as box:
        process = rig.start("run", "job.yaml", "--json", env=box.env)
        reaches(process, lambda: box.stats["accepted"] == 3)
        (rig.state / "ballast").unlink()
        disk.leave(0)
        # the end of the journal's last page is free space too: no file of the process can grow any more
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, ((rig.state / "journal.jsonl").stat().st_size,) * 2)
        code, _, err = ended(process)
        assert (code, "Traceback" in err) == (14, False), err
        printed = dict(re.findall(r"EMERGENCY id\{key=(\w+) ref=\S+ remote_id=(\S+)\}", err))
        assert sorted(printed.values()) == sorted(task["id"] for task in box.accepted[1:])
        disk.leave(PLENTY)
        summary = rig.job(env=box.env)
        assert (summary["exit_code"], summary["counts"]) == (4, {"done": 1, "held": 2})
        for key, remote_id in printed.items():
            assert rig.run("resolve", "job.yaml", key, "--adopt", remote_id, env=box.env).returncode == 0
        rig.finishes(box, 3)


@pytest.mark.slow
@needs_disk
def test_fd02_download_without_space_is_retried_later(full):
    """A download that finds no free space is fetched later, and the task is not bought again."""
    rig, disk = full
    rig.write("job.yaml", images(6))
    with sandbox(*FAST, "--file-bytes", "1500000") as box:
        process = rig.start("run", "job.yaml", "--json", env=box.env)
        reaches(process, lambda: any((rig.state / "parts").glob("*.part")))
        disk.leave(MIB)
        code, _, err = ended(process)
        assert (code, "Traceback" in err, "EMERGENCY" in err) == (14, False, False), err
        disk.leave(PLENTY)
        counts = json.loads(rig.run("status", "job.yaml", "--json").stdout)["counts"]
        assert {"ready", "running"} & set(counts)
        assert {line["remote_id"] for line in rig.journal if line["t"] == "id"} == {each["id"] for each in box.accepted}
        rig.finishes(box, 6)


@pytest.mark.slow
@needs_disk
def test_fd02_low_free_space_stops_purchases(full):
    """With less space than 64 MiB and the expected outputs in flight there is no submit. Paid tasks are polled."""
    rig, disk = full
    rig.write("job.yaml", images(6))
    disk.leave(8 * MIB)
    with sandbox(*FAST) as box:
        code, _, err = ended(rig.start("run", "job.yaml", "--json", env=box.env))
        assert (code, box.stats["accepted"]) == (14, 0), err


# nothing may be written

_BOUNDING_DROP, _OVERRIDES = 24, (1, 2)


def mortal() -> None:
    """Drop root's permission to write anywhere, in a child before it becomes the command."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None)
        for capability in _OVERRIDES:
            libc.prctl(_BOUNDING_DROP, capability, 0, 0, 0)


def refused(rig, box) -> str:
    """Return the message of a run that cannot write and sends no request."""
    requests = box.requests()
    code, _, err = ended(rig.start("run", "job.yaml", env=box.env))
    assert (code, "Traceback" in err) == (14, False), err
    assert box.requests() == requests
    return err


@pytest.mark.slow
def test_fd03_unwritable_directory_is_found_before_submit(rig):
    """A directory without write permission is found before the first submit."""
    rig.options = {"preexec_fn": mortal}
    rig.write("job.yaml", images(2))
    with sandbox(*FAST) as box:
        for where in ("out", "out/job", "out/job/.runner"):
            closed = rig.root / where
            closed.mkdir()
            closed.chmod(0o555)
            assert str(closed) in refused(rig, box)
            closed.chmod(0o755)
        rig.finishes(box, 2)


@pytest.mark.slow
@needs_disk
@pytest.mark.parametrize("lack", ["names", "leave"])
def test_fd03_no_inodes_and_read_only_disk_are_found(full, lack):
    rig, disk = full
    rig.write("job.yaml", images(2))
    with sandbox(*FAST) as box:
        disk.leave_no_names() if lack == "names" else disk.write_protect()
        printed = refused(rig, box)
        assert ("space" if lack == "names" else "Read-only") in printed


@pytest.mark.slow
def test_fd03_long_names_are_cut_to_file_system_limit(rig):
    """84 Chinese characters and `.png` are 256 bytes."""
    manifest = images(2).replace("thing", "青" * 300).replace("aspect_ratio", "n: 2, aspect_ratio")
    rig.write("job.yaml", manifest + 'output: {name: "{{ index }}-{{ subject }}"}\n')
    with sandbox(*FAST) as box:
        rig.finishes(box, 2)
    names = [output["file"] for line in rig.results() for output in line["outputs"]]
    assert len(set(names)) == 4
    assert all(len(name.encode()) <= 255 for name in names)


# the disk breaks

BROKEN = """
import errno, itertools, os
from runner.errors import StateError
from runner.store.journal import read_lines
from tests.faults import sick_sqlite
counter = itertools.count(1)
def is_due(name):
    with open("syncs", "a") as log:
        log.write(f"{{name}}\\n")
    return next(counter) == {number}
def intercept(kind, path, where, data):
    if kind == "sync" and path.endswith({name!r}) and is_due(path):
        return sick_sqlite.IOERR_FSYNC
sick_sqlite.intercept(intercept)
paths, opened = {{}}, os.open
def opening(path, *args, **kwargs):
    found = opened(path, *args, **kwargs)
    paths[found] = os.fspath(path)
    return found
os.open = opening
for name in ("fsync", "fdatasync"):
    def syncing(file, sync=getattr(os, name)):
        if paths.get(file, "").endswith({name!r}) and is_due(paths[file]):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(file)
    setattr(os, name, syncing)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sick_sqlite.available(), reason="this Python hides its SQLite")
@pytest.mark.parametrize(("name", "number"), [("state.db-wal", 12), ("journal.jsonl", 5), (".part", 2)])
def test_fd04_failed_fsync_ends_run_without_retry(rig, name, number):
    """The content of the disk is unknown then: exit 14, no more purchases, and the next run reconciles everything."""
    rig.write("job.yaml", images(8, qps=20))
    with sandbox(*FAST) as box:
        before = BROKEN.format(name=name, number=number)
        code, _, err = ended(rig.sick(before, "run", "job.yaml", "--json", env=box.env))
        assert (code, "Traceback" in err) == (14, False), err
        assert re.search("I/O error|Input/output error", err)
        assert (rig.state / "ballast").exists(), "free space was not missing"
        if name == "journal.jsonl":
            assert len((rig.root / "syncs").read_text().splitlines()) == number, "it was tried again"
        if name != ".part":
            assert box.stats["accepted"] < 8
        rig.finishes(box, 8)


async def test_fd04_ids_are_saved_with_broken_account_database(tmp_path):
    """The account database may be on another disk. A received id goes to the journal, and nothing more is bought."""

    async def breaks(call):
        (shared,) = tmp_path.glob("home/accounts/*/claims.db")
        shared.write_bytes(b"no database" * 400)
        await call.pass_on()

    async with chain(tmp_path, "chanjing", workers=1) as ours:
        ours.middle.deeds["submit"] = {2: breaks}
        with pytest.raises(StateError, match=r"claims\.db"):
            await ours.run(4)
        known = [
            line["remote_id"]
            for line, _ in read_lines(ours.directory / ".runner" / "journal.jsonl")
            if line["t"] == "id"
        ]
        assert known == [task.id for task in ours.accepted]
        assert len(known) == 2
        (shared,) = tmp_path.glob("home/accounts/*/claims.db")
        shared.unlink()
        ours.paid_once(await ours.run(4), 4)
