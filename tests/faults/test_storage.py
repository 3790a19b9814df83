"""FD5 to FD12: locked, damaged, deleted or readable databases, and files and directories that users move."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from runner.app.job import load
from runner.errors import DiskError, ManifestError, StateError
from runner.settings import Settings
from runner.store import filesystem
from runner.store.rebuild import rebuild
from runner.store.store import Store
from runner.tasks.events import Claimed
from runner.tasks.models import Moment
from runner.tasks.retry_policy import RetryPolicy
from runner.tasks.transitions import advance
from tests.faults.conftest import FAST, MEMORY, ended, images, reaches, sandbox

# locked by another process

#: thirty seconds become the tenth part of one
HASTY = """
from runner.store import store as store_module
set_up = store_module.set_up_connection
def hasty(connection, **options):
    set_up(connection, **options)
    connection.execute("pragma busy_timeout = 30")
store_module.set_up_connection = hasty
"""


@contextmanager
def held(path: Path):
    """Hold a transaction of another program, such as a backup, for the duration of a block."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as connection:
        connection.execute("begin immediate")
        yield connection
        if connection.in_transaction:
            connection.execute("rollback")


@pytest.mark.slow
def test_fd05_short_lock_is_waited_for(rig):
    rig.write("job.yaml", images(6))
    with sandbox(*FAST, "--fault", "slow_reply=@1", "--slow-s", "0.5") as box:
        process = rig.start("run", "job.yaml", "--json", env=box.env)
        reaches(process, lambda: box.stats["accepted"] == 1)
        with held(rig.state / "state.db") as other:
            freed = threading.Timer(1.5, other.execute, ["rollback"])
            freed.start()
            code, summary, err = ended(process)
            freed.join()
        assert (code, summary.get("counts")) == (0, {"done": 6}), err
        rig.paid_once(box, 6)


@pytest.mark.slow
def test_fd05_long_lock_at_start_is_exit_11(rig):
    rig.write("job.yaml", images(4))
    with sandbox(*FAST) as box:
        ended(rig.start("run", "job.yaml", env={**box.env, "RUNNER_CRASH_AT": "id committed:2"}))
        requests = box.requests()
        with held(rig.state / "state.db"):
            code, _, err = ended(rig.sick(HASTY, "run", "job.yaml", env=box.env))
        assert (code, "Traceback" in err) == (11, False), err
        assert "held by another program" in err
        assert box.requests() == requests
        rig.finishes(box, 4)


@pytest.mark.slow
def test_fd05_received_id_waits_for_long_lock(rig):
    """The response arrives during a lock that outlasts one attempt. It is written as soon as possible."""
    rig.write("job.yaml", images(6))
    with sandbox(*FAST, "--fault", "slow_reply=@1", "--slow-s", "0.2") as box:
        process = rig.sick(HASTY, "run", "job.yaml", "--json", env=box.env)
        reaches(process, lambda: box.stats["accepted"] == 1)
        with held(rig.state / "state.db") as other:
            freed = threading.Timer(0.4, other.execute, ["rollback"])
            freed.start()
            code, summary, err = ended(process)
            freed.join()
        assert ("Traceback" in err, "EMERGENCY" in err) == (False, False), err
        ids = {line["remote_id"] for line in rig.journal if line["t"] == "id"}
        assert ids == {task["id"] for task in box.accepted}
        assert (code, summary.get("counts")) == (0, {"done": 6}), err
        rig.paid_once(box, 6)


@pytest.mark.slow
def test_fd05_endless_lock_is_exit_5_and_prints_received_ids(rig):
    """A lock without an end in mid-run is exit 5, and received ids are printed."""
    rig.write("job.yaml", images(6))
    with sandbox(*FAST, "--fault", "slow_reply=@2,3", "--slow-s", "0.5") as box:
        process = rig.sick(HASTY, "run", "job.yaml", "--json", env=box.env)
        reaches(process, lambda: box.stats["accepted"] >= 3)
        with held(rig.state / "state.db"):
            code, _, err = ended(process)
        assert (code, "Traceback" in err) == (5, False), err
        assert "held by another program" in err
        known = {line["remote_id"] for line in rig.journal if line["t"] == "id"}
        printed = {word.rstrip("}") for word in err.replace("remote_id=", " ").split()}
        assert {task["id"] for task in box.accepted} <= known | printed
        rig.finishes(box, 6)


# it is not what it was


@pytest.fixture
def half(rig):
    """Run half of a job to its end, and keep its sandbox running."""
    rig.write("job.yaml", images(16, qps=20))
    with sandbox(*FAST) as box:
        rig.env = box.env
        rig.job("job.yaml", "--deadline", "0.4s")
        assert 0 < box.stats["accepted"] < 16
        yield rig, box


class Ledger:
    """The purchases in a journal, to check that a store would buy none of them again."""

    def __init__(self, rig) -> None:
        job = load(rig.root / "job.yaml", Settings({**rig.env, "RUNNER_HOME": str(rig.root / "home")}))
        self.additions = list(job.additions())
        paid = {line["ref"] for line in rig.journal if line["t"] == "id"}
        self.bought = {line["key"] for line in rig.journal if line["t"] == "intent" and line["ref"] in paid}

    async def buys(self, home: Path) -> set[str]:
        """Return the keys that a run with a changed manifest would buy."""
        store, found = await Store.open(home), set()
        try:
            await store.add(iter(self.additions), "changed", 2e9)
            claimed = Claimed(Moment("boot", 1.0), 2e9)
            while task := await store.claim_queued(
                "chanjing", 2e12, 10**6, lambda task: advance(task, claimed, 2e9, RetryPolicy())
            ):
                found.add(task.key)
        finally:
            await store.aclose()
        return found


@pytest.mark.slow
@pytest.mark.parametrize("where", ["state.db", "state.db-wal"])
async def test_fd06_flipped_byte_buys_nothing_again(half, where):
    """A hundred flips anywhere: the run works, or it is exit 13 and the journal restores everything."""
    rig, _ = half
    state, chance, ledger, detected = rig.state, Random(6), Ledger(rig), 0
    if where.endswith("-wal"):
        ended(rig.start("run", "job.yaml", env={"RUNNER_CRASH_AT": "intent committed:1"}))
        ledger = Ledger(rig)
    good = (state / where).read_bytes()
    for _ in range(100):
        data, at = bytearray(good), chance.randrange(len(good))
        data[at] ^= 1 << chance.randrange(8)
        with TemporaryDirectory(dir=MEMORY) as work:
            home = Path(work) / "state"
            shutil.copytree(state, home, ignore=shutil.ignore_patterns("*-shm", "parts"))
            (home / where).write_bytes(data)
            try:
                buys = await ledger.buys(home)
            except StateError:
                detected += 1
                rebuild(home, iter(ledger.additions), 2e9)
                buys = await ledger.buys(home)
        assert not buys & ledger.bought, f"byte {at} of {where}"
    assert detected or where.endswith("-wal"), "a hundred flips and none was detected: is the database checked at all?"


@pytest.mark.slow
def test_fd07_copy_without_wal_buys_nothing_again(rig):
    """`cp state.db` after a kill loses ten committed rows, which the journal restores."""
    rig.write("job.yaml", images(10, qps=20))
    with sandbox(*FAST) as box:
        rig.env = box.env
        ended(rig.start("run", "job.yaml", env={"RUNNER_CRASH_AT": "id committed:6"}))
        assert (rig.state / "state.db-wal").stat().st_size > 0
        bought = box.stats["accepted"]
        for suffix in ("-wal", "-shm"):
            (rig.state / f"state.db{suffix}").unlink()
        code, _, err = ended(rig.start("run", "job.yaml"))
        assert (code, "Traceback" in err, "recover" in err) == (13, False, True), err
        assert box.stats["accepted"] == bought
        assert rig.run("recover", "job.yaml").returncode == 0
        rig.finishes(box, 10)


# where it may not be


KINDS = ("nfs4", "cifs", "9p", "fuse.sshfs")


@pytest.mark.parametrize("kind", KINDS)
def test_fd08_network_file_system_is_refused_by_name(tmp_path, kind):
    mounts = tmp_path / "mountinfo"
    here = tmp_path / "with space"
    point = str(here).replace(" ", "\\040")
    mounts.write_text(
        "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"22 21 0:40 / {point} rw,relatime shared:1 - {kind} far:/away rw\n"
        f"23 21 0:41 / {tmp_path}/without rw - {kind} far:/else rw\n"
    )
    with pytest.raises(DiskError, match=kind):
        filesystem.check(here / "out", mounts=mounts)
    filesystem.check(tmp_path / "local", mounts=mounts)


@pytest.mark.slow
def test_fd08_command_refuses_it_before_any_request(rig):
    (rig.root / "mountinfo").write_text(f"22 21 0:40 / {rig.root} rw - nfs4 far:/away rw\n")
    far = "from pathlib import Path\nfrom runner.store import filesystem\n"
    far += f"filesystem.check.__kwdefaults__['mounts'] = Path({str(rig.root / 'mountinfo')!r})\n"
    rig.write("job.yaml", images(2))
    with sandbox(*FAST) as box:
        code, _, err = ended(rig.sick(far, "run", "job.yaml", env=box.env))
        assert (code, "nfs4" in err, box.requests()) == (14, True, 0), err


@pytest.mark.slow
def test_fd08_allowed_network_file_system_uses_no_wal(rig):
    """The database has no -wal and no -shm file during the run. On a local disk it has them again."""
    (rig.root / "mountinfo").write_text(f"22 21 0:40 / {rig.root} rw - nfs4 far:/away rw\n")
    far = "from pathlib import Path\nfrom runner.store import filesystem\n"
    far += "for check in (filesystem.check, filesystem.is_remote):\n"
    far += f"    check.__kwdefaults__['mounts'] = Path({str(rig.root / 'mountinfo')!r})\n"
    rig.write("job.yaml", images(6, qps=5))
    with sandbox(*FAST) as box:
        env = {**box.env, "RUNNER_NETWORK_DISK": "1"}
        process = rig.sick(far, "run", "job.yaml", "--json", env=env)
        reaches(process, lambda: box.stats["accepted"] >= 2)
        assert not list(rig.state.glob("state.db-[ws]*"))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        code, summary, err = ended(rig.sick(far, "run", "job.yaml", "--json", env=env))
        assert (code, summary.get("counts")) == (0, {"done": 6}), err
        rig.paid_once(box, 6)
        rig.consistent()
        rig.finishes(box, 6)
        with closing(sqlite3.connect(rig.state / "state.db")) as connection:
            assert connection.execute("pragma journal_mode").fetchone() == ("wal",)


@pytest.mark.slow
def test_fd09_state_is_private_while_it_is_written(rig):
    """The files are private even with a umask of 0."""
    rig.options = {"umask": 0}
    rig.write("job.yaml", images(3))
    with sandbox(*FAST, "--fault", "slow_download=1.0", "--slow-s", "5", "--file-bytes", "300000") as box:
        process = rig.start("run", "job.yaml", env=box.env)
        reaches(process, lambda: any((rig.state / "parts").glob("*.part")))
        found = {path: path.stat().st_mode & 0o077 for path in (rig.state, *rig.state.rglob("*"), *home(rig))}
        process.send_signal(signal.SIGKILL)
    names = {path.name for path in found}
    assert {"state.db", "state.db-wal", "state.db-shm", "journal.jsonl", "lock", "ballast", "parts"} <= names
    assert {"token.json", "claims.db", "jobs.db"} <= names
    assert {str(path): oct(mode) for path, mode in found.items() if mode} == {}


def home(rig) -> list[Path]:
    """Return the shared files of an account's jobs, with their directory."""
    return list((rig.root / "home").glob("accounts/**/*"))


# files and directories that users move


@pytest.mark.slow
def test_fd10_deleted_and_changed_outputs_are_not_bought_again(half):
    rig, box = half
    files = [rig.directory / output["file"] for line in rig.results() for output in line["outputs"]]
    assert len(files) > 2
    rig.write("job.yaml", images(len(files), qps=20))
    files[0].unlink()
    files[1].write_bytes(b"edited")
    bought = box.stats["accepted"]
    assert rig.job()["submitted"] == 0
    assert files[0].exists()
    assert rig.run("verify", "job.yaml").returncode == 0
    assert files[1].read_bytes() == b"edited"
    names = {output["file"] for line in rig.results() for output in line["outputs"]}
    assert files[1].name not in names, "a file that the user edited is kept"
    assert box.stats["accepted"] == bought


ALIKE = {
    "the same": ("lighthouse", "lighthouse"),
    "case": ("Lighthouse", "lighthouse"),
    "composition": ("caf\u00e9", "cafe\u0301"),
    "what is cut off": ("a" * 200, "a" * 201),
}


def alike(rig, kind: str) -> Path:
    """Return a manifest with two tasks whose files would have the same name."""
    first, second = ALIKE[kind]
    items = json.dumps([{"subject": "one", "file": first}, {"subject": "two", "file": second}], ensure_ascii=False)
    manifest = images(1).replace("items:\n  - {subject: thing 0}", f"items: {items}")
    return rig.write("job.yaml", manifest + 'output: {name: "{{ file }}"}\n')


@pytest.mark.parametrize("kind", ALIKE)
def test_fd11_two_tasks_with_one_file_name_are_an_error(rig, kind):
    """Two tasks of one file name are an error in the manifest."""
    with pytest.raises(ManifestError, match=r"task 1 .* and task 2 .* are both called"):
        load(alike(rig, kind), Settings({}))


@pytest.mark.slow
def test_fd11_command_reports_it_before_purchase(rig):
    alike(rig, "composition")
    with sandbox(*FAST) as box:
        code, _, err = ended(rig.start("run", "job.yaml", env=box.env))
        assert (code, "both called" in err, box.requests()) == (2, True, 0), err


@pytest.mark.slow
def test_fd12_moved_job_continues(half):
    """Paths are relative to the job, so manifest, outputs and state under another name are the same job."""
    rig, box = half
    there = rig.root.with_name("moved")
    rig.root.rename(there)
    rig.root, bought = there, box.stats["accepted"]
    rig.env = {**rig.env, "RUNNER_HOME": str(there / "home")}
    assert rig.finishes(box, 16)["submitted"] == 16 - bought


@pytest.mark.slow
def test_fd12_directory_moved_during_run_is_not_recreated(rig):
    """A directory that is moved away in mid-run is not created again."""
    rig.write("job.yaml", images(12, qps=10))
    with sandbox(*FAST) as box:
        process = rig.start("run", "job.yaml", "--json", env=box.env)
        reaches(process, lambda: box.stats["accepted"] >= 3)
        away = rig.root / "away"
        rig.directory.rename(away)
        code, _, err = ended(process)
        assert (code, "Traceback" in err) == (13, False), err
        assert "was removed while the job ran: nothing more was bought" in err
        assert not (rig.directory / ".runner/state.db").exists()
        shutil.rmtree(rig.directory, ignore_errors=True)
        away.rename(rig.directory)
        rig.finishes(box, 12)
