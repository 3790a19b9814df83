"""A state that is not the newest: job and account are put back together, and the provider's list knows better."""

from __future__ import annotations

import shutil
import signal

import pytest

from tests.whole.conftest import buy_before, images, sandbox, until

SLOW = ("--seconds", "0.1,0.3", "--accept-delay-s", "0.3")


def bought_and_put_back(desk, box, count: int, *, bought: int = 0) -> int:
    """Buy some of the tasks, keep job and account, buy the rest, and put back what was kept. Return how many it has.

    `bought` is what the account has bought before.
    """
    desk.env = box.env
    process = desk.start("run", "job.yaml", "--json")
    until(lambda: box.stats["accepted"] >= bought + 2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=40)
    early = box.stats["accepted"] - bought
    for name in ("out", "home"):
        shutil.copytree(desk.root / name, desk.root / f"kept {name}")
    assert desk.job()["counts"] == {"done": count}
    for name in ("out", "home"):
        shutil.rmtree(desk.root / name)
        (desk.root / f"kept {name}").rename(desk.root / name)
    return early


@pytest.mark.slow
@pytest.mark.parametrize("lie", [(), ("--no-external-id-unique",)], ids=["refuses duplicates", "takes duplicates"])
def test_backup_of_job_and_home_buys_nothing_again(desk, lie):
    """Kling's references bring every forgotten purchase back with its id."""
    desk.write("job.yaml", images(12, provider="kling", model="image/kling-v2-1", qps=4))
    with sandbox(*SLOW, *lie) as box:
        early = bought_and_put_back(desk, box, 12)
        assert 0 < early < 12
        done = desk.run("run", "job.yaml", "--json")
        assert box.stats["accepted"] == 12, done.stderr
        assert done.returncode == 0
        assert (
            f"{12 - early} tasks of this job had been bought in a run that its state does not remember" in done.stderr
        )
        ids = {task["id"] for task in box.accepted}
        assert {line["remote_id"] for line in desk.results()} == ids


@pytest.mark.slow
def test_backup_without_references_buys_nothing_again(desk):
    """Chanjing's list shows what was bought since: each task is put in doubt, and adopted."""
    desk.write("job.yaml", images(12, qps=4))
    with sandbox(*SLOW) as box:
        bought = buy_before(desk, box, "chanjing", "kling-v2-1")
        had = bought_and_put_back(desk, box, 12, bought=bought)
        assert box.stats["accepted"] == 12 + bought
        done = desk.run("run", "job.yaml", "--json")
        assert box.stats["accepted"] == 12 + bought, done.stderr
        assert done.returncode == 0, done.stderr
        assert f"{12 - had} tasks to buy stand in the list already" in done.stderr
        assert {line["remote_id"] for line in desk.results()} == {
            task["id"] for task in box.accepted if "earlier" not in str(task)
        }


@pytest.mark.slow
def test_rows_from_before_a_job_are_never_taken_for_its_own(desk):
    """The same tasks were bought for this account by somebody else: a new job buys its own, at each of its starts."""
    desk.write("job.yaml", images(6, qps=4))
    with sandbox(*SLOW) as box:
        desk.env = box.env
        assert desk.job(env={"RUNNER_HOME": str(desk.root / "elsewhere")})["counts"] == {"done": 6}
        (desk.root / "out").rename(desk.root / "theirs")
        process = desk.start("run", "job.yaml")
        until(lambda: box.stats["accepted"] >= 8)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=40)
        summary = desk.job()
        assert summary["counts"] == {"done": 6}
        assert box.stats["accepted"] == 12
        ids = [line["remote_id"] for line in desk.results()]
        assert len(set(ids)) == 6
        assert not set(ids) & {line["remote_id"] for line in desk.results("theirs/job")}
