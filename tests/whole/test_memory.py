"""Jobs whose state was deleted, copied, restored from a backup or started again elsewhere. None buys twice."""

from __future__ import annotations

import shutil
import signal

import pytest

from .conftest import images, sandbox, until

SLOW = ("--seconds", "30,40")


@pytest.fixture
def begun(desk):
    """Run a job that is killed after four of six purchases, so that only the account database knows them."""
    desk.write("job.yaml", images(6, more="limits: {qps: 50, in_flight: 4}\nretry: {doubt: 1s}", qps=50).replace(
        "limits: {qps: 50}\n", ""))  # fmt: skip
    with sandbox(*SLOW) as box:
        desk.env = box.env
        process = desk.start("run", "job.yaml")
        until(lambda: box.stats["accepted"] == 4)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        yield box


def test_deleted_state_is_detected(desk, begun):
    shutil.rmtree(desk.root / "out/job/.runner")
    done = desk.run("run", "job.yaml")
    assert (done.returncode, begun.stats["accepted"]) == (13, 4)
    assert "its state is gone" in done.stderr
    assert "--buy-again" in done.stderr


def test_deleted_job_directory_is_detected(desk, begun):
    shutil.rmtree(desk.root / "out")
    assert desk.run("run", "job.yaml").returncode == 13
    assert begun.stats["accepted"] == 4


@pytest.mark.slow
def test_old_copy_of_state_is_refused(desk, begun):
    """State and journal are old together and agree with each other. Only the account database shows the difference."""
    begun.change(seconds=[0.0, 0.1])
    state = desk.root / "out/job/.runner"
    shutil.copytree(state, desk.root / "yesterday")
    process = desk.start("run", "job.yaml")
    until(lambda: begun.stats["accepted"] >= 5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    bought = begun.stats["accepted"]
    shutil.rmtree(state)
    shutil.copytree(desk.root / "yesterday", state)
    for _ in range(2):  # a second try is no other word than the first
        done = desk.run("run", "job.yaml")
        assert (done.returncode, begun.stats["accepted"]) == (13, bought)
        assert "put back from a copy" in done.stderr


@pytest.mark.slow
def test_copy_from_mid_run_is_not_taken_for_its_end(desk):
    desk.write("job.yaml", images(6, qps=4))
    state = desk.root / "out/job/.runner"
    with sandbox("--seconds", "0.0,0.1") as box:
        desk.env = box.env
        process = desk.start("run", "job.yaml")
        until(lambda: box.stats["accepted"] >= 2)
        shutil.copytree(state, desk.root / "then")
        process.communicate()
        assert box.stats["accepted"] == 6
        shutil.rmtree(state)
        shutil.copytree(desk.root / "then", state)
        done = desk.run("run", "job.yaml")
        assert (done.returncode, box.stats["accepted"]) == (13, 6)
        assert "put back from a copy" in done.stderr


@pytest.mark.slow
def test_copy_beside_the_job_buys_nothing_twice(desk, begun):
    """A copy beside the job does not buy the rest a second time."""
    shutil.copytree(desk.root / "out/job", desk.root / "out/copy")
    done = desk.run("run", "job.yaml", "--out", "out/copy")
    assert (done.returncode, begun.stats["accepted"]) == (13, 4)
    assert "is a copy of" in done.stderr


@pytest.mark.slow
def test_moved_job_is_the_same_job(desk, begun):
    begun.change(seconds=[0.0, 0.1])
    (desk.root / "out/job").rename(desk.root / "out/moved")
    assert desk.job("job.yaml", "--out", "out/moved")["exit_code"] == 0
    assert begun.stats["duplicates"] == 0


@pytest.mark.slow
def test_same_tasks_under_another_name_are_not_bought(desk, begun):
    """Row FM4 of the fault table: the job is run again under a new name. What it had not bought is bought there."""
    text = (desk.root / "job.yaml").read_text()
    desk.write("posters.yaml", text.replace("thing 0}\n", "thing 0}\n", 1) + "name: other\n")
    begun.change(seconds=[0.0, 0.1])
    done = desk.run("run", "posters.yaml")
    assert (done.returncode, begun.stats["accepted"]) == (5, 6)
    assert "4 rest here" in done.stdout
    assert desk.job("posters.yaml", "--buy-again")["submitted"] == 4


@pytest.mark.slow
def test_user_can_confirm_purchase(desk, begun):
    begun.change(seconds=[0.0, 0.1])
    shutil.rmtree(desk.root / "out")
    assert desk.job("job.yaml", "--buy-again")["submitted"] == 6
    assert desk.job("job.yaml")["submitted"] == 0
