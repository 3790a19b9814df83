"""A lease on another disk: what no list and no binding can tell, it can."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.whole.conftest import images, sandbox
from tests.whole.test_restored import KINDS, SLOW, buy

#: more than a busy machine buys before it is told to stop
TASKS = 14


@pytest.fixture
def leased(desk):
    """A job at a gateway that keeps no record, with a lease; two tasks are bought."""
    (desk.root / "nas").mkdir()
    desk.write("job.yaml", images(TASKS, provider="kling-gateway", model=KINDS["kling-gateway"], qps=2))
    with sandbox(*SLOW) as box:
        desk.env = {**box.env, "RUNNER_LEASE": f"file://{desk.root}/nas"}
        buy(desk, box, 2)
        yield box


def put_back_in_place(desk) -> None:
    """Put job and home back over their own files, which keep their inodes: the binding cannot tell."""
    for name in ("out", "home"):
        for file in (desk.root / f"kept {name}").rglob("*"):
            if file.is_file():
                place = desk.root / name / file.relative_to(desk.root / f"kept {name}")
                place.write_bytes(file.read_bytes())
        for leftover in (desk.root / name).rglob("*-wal"):
            leftover.unlink()
        for leftover in (desk.root / name).rglob("*-shm"):
            leftover.unlink()


@pytest.mark.slow
def test_state_put_back_in_place_is_known_by_its_lease(desk, leased):
    for name in ("out", "home"):
        shutil.copytree(desk.root / name, desk.root / f"kept {name}")
    buy(desk, leased, leased.stats["accepted"] + 2)
    bought = leased.stats["accepted"]
    put_back_in_place(desk)
    done = desk.run("run", "job.yaml")
    assert (done.returncode, leased.stats["accepted"]) == (13, bought), done.stderr
    assert "knows a later run than this state" in done.stderr
    asked = desk.run("adopt-state", "job.yaml")
    assert "knows a later run" in asked.stdout
    assert desk.run("adopt-state", "job.yaml", "--yes").returncode == 0
    assert desk.job()["counts"] == {"done": TASKS}


@pytest.mark.slow
def test_lease_that_is_older_or_damaged_or_gone(desk, leased):
    """Older: renewed. Damaged: nobody knows. Gone or out of reach: a warning, or nothing with `required`."""
    (lease,) = (desk.root / "nas").iterdir()
    older, bought = lease.read_bytes(), leased.stats["accepted"]
    buy(desk, leased, bought + 1)
    bought = leased.stats["accepted"]
    assert json.loads(lease.read_bytes())["end"] > json.loads(older)["end"]
    lease.write_bytes(b"{")
    done = desk.run("run", "job.yaml")
    assert (done.returncode, leased.stats["accepted"], "is damaged" in done.stderr) == (13, bought, True)
    lease.unlink()
    done = desk.run("run", "job.yaml", "--lease", "required")
    assert (done.returncode, leased.stats["accepted"], "nothing is bought without it" in done.stderr) == (
        7,
        bought,
        True,
    )
    (desk.root / "nas").rename(desk.root / "away")
    done = desk.run("run", "job.yaml", "--lease", "required")
    assert (done.returncode, leased.stats["accepted"]) == (7, bought)
    (desk.root / "away").rename(desk.root / "nas")
    lease.write_bytes(older)
    buy(desk, leased, bought + 1)
    (desk.root / "nas").rename(desk.root / "away")
    done = desk.run("run", "job.yaml", "--json")
    assert json.loads(done.stdout)["counts"] == {"done": TASKS}
    assert "cannot be reached" in done.stderr


@pytest.mark.slow
def test_of_two_clones_at_work_the_lease_stops_one(desk, leased):
    """Both were adopted on disks of their own, as on two machines."""
    shutil.copytree(desk.root / "out" / "job", desk.root / "copy")
    shutil.copytree(desk.root / "home", desk.root / "home2")
    (desk.root / "out").rename(desk.root / "elsewhere")
    there = {"RUNNER_HOME": str(desk.root / "home2")}
    assert desk.run("adopt-state", "job.yaml", "--out", "copy", "--yes", env=there).returncode == 0
    bought = leased.stats["accepted"]
    done = desk.run("run", "job.yaml", "--out", "elsewhere/job")
    assert (done.returncode, leased.stats["accepted"]) == (13, bought)
    assert "knows a later run" in done.stderr
    assert desk.run("run", "job.yaml", "--out", "copy", env=there).returncode == 0
    assert leased.stats["accepted"] == TASKS
    refused = desk.run("run", "job.yaml", "--out", "copy", env={**there, "RUNNER_LEASE": "s3://bucket"})
    assert (refused.returncode, "is no address of a directory" in refused.stderr) == (7, True)
