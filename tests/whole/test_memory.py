"""Jobs that lost their memory: deleted, copied, put back from yesterday, begun again elsewhere. None buys twice."""

from __future__ import annotations

import shutil
import signal

import pytest

from .conftest import images, sandbox, until

SLOW = ("--seconds", "30,40")


@pytest.fixture
def begun(desk):
    """A job with four of six bought and killed: nothing but the account remembers."""
    desk.write("job.yaml", images(6, more="limits: {qps: 50, in_flight: 4}\nretry: {doubt: 1s}", qps=50).replace(
        "limits: {qps: 50}\n", ""))  # fmt: skip
    with sandbox(*SLOW) as box:
        desk.env = box.env
        process = desk.start("run", "job.yaml")
        until(lambda: box.stats["accepted"] == 4)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        yield box


def test_a_state_that_was_deleted_is_missed(desk, begun):
    shutil.rmtree(desk.root / "out/job/.runner")
    done = desk.run("run", "job.yaml")
    assert (done.returncode, begun.stats["accepted"]) == (13, 4)
    assert "its state is gone" in done.stderr
    assert "--buy-again" in done.stderr


def test_a_job_directory_that_was_deleted_is_missed_too(desk, begun):
    shutil.rmtree(desk.root / "out")
    assert desk.run("run", "job.yaml").returncode == 13
    assert begun.stats["accepted"] == 4


def test_yesterdays_copy_is_not_taken_for_today(desk, begun):
    """State and journal together, so that they agree with each other: only the account knows better."""
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


def test_a_copy_of_the_middle_of_a_run_is_not_taken_for_its_end(desk):
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


def test_a_copy_beside_the_job_does_not_buy_the_rest_a_second_time(desk, begun):
    shutil.copytree(desk.root / "out/job", desk.root / "out/copy")
    done = desk.run("run", "job.yaml", "--out", "out/copy")
    assert (done.returncode, begun.stats["accepted"]) == (13, 4)
    assert "is a copy of" in done.stderr


def test_a_job_that_was_moved_is_the_same_job(desk, begun):
    begun.change(seconds=[0.0, 0.1])
    (desk.root / "out/job").rename(desk.root / "out/moved")
    assert desk.job("job.yaml", "--out", "out/moved")["exit_code"] == 0
    assert begun.stats["duplicates"] == 0


def test_the_same_tasks_under_another_name_wait_for_a_word(desk, begun):
    """faults.md FM4."""
    text = (desk.root / "job.yaml").read_text()
    desk.write("posters.yaml", text.replace("thing 0}\n", "thing 0}\n", 1) + "name: other\n")
    done = desk.run("run", "posters.yaml")
    assert (done.returncode, begun.stats["accepted"]) == (2, 4)
    assert "the same tasks are not finished in" in done.stderr
    begun.change(seconds=[0.0, 0.1])
    assert desk.job("posters.yaml", "--buy-again")["submitted"] == 6


def test_a_person_may_say_so(desk, begun):
    begun.change(seconds=[0.0, 0.1])
    shutil.rmtree(desk.root / "out")
    assert desk.job("job.yaml", "--buy-again")["submitted"] == 6
    assert desk.job("job.yaml")["submitted"] == 0
