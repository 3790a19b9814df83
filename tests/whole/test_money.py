"""Spending caps with real processes: the job pauses before the task that would exceed the cap, never after it."""

from __future__ import annotations

import json
import signal
import sqlite3
from contextlib import closing

import pytest

from .conftest import images, sandbox, until

FAST = ("--seconds", "0.1,0.3")
PRICED = "cost: 4\n"


@pytest.mark.slow
def test_job_pauses_before_exceeding_its_cap(desk):
    desk.write("job.yaml", PRICED + images(6))
    with sandbox(*FAST) as box:
        desk.env = box.env
        summary = desk.job("job.yaml", "--max-cost", "11")
        assert (summary["exit_code"], summary["cost"]) == (8, 8)
        assert summary["counts"] == {"done": 2, "queued": 4}
        assert box.stats["accepted"] == 2
        assert "max_cost" in summary["reasons"][0]
        assert desk.job("job.yaml", "--max-cost", "11")["submitted"] == 0
        assert (desk.job()["cost"], box.stats["accepted"]) == (16, 6)
        assert [line["cost"] for line in desk.results()] == [4.0] * 6
        status = json.loads(desk.run("status", "job.yaml", "--json").stdout)
        assert status["cost"] == 24


@pytest.mark.slow
def test_in_doubt_counts_as_spent(desk):
    """The spending of a job never exceeds its cap (invariant I20). A program without the rule would pay more."""
    desk.write("job.yaml", PRICED + images(4, provider="kling-gateway", model="image/kling-v1-5"))
    with sandbox(*FAST, "--fault", "lost_reply=@1") as box:
        desk.env = box.env
        summary = desk.job("job.yaml", "--max-cost", "8")
        assert summary["exit_code"] == 4
        assert summary["counts"] == {"held": 1, "done": 1, "queued": 2}
        assert box.stats["accepted"] == 2


@pytest.mark.slow
def test_unbilled_failure_frees_its_part_of_the_cap(desk):
    """A failure that the provider does not bill leaves enough of the cap for another task."""
    desk.write("job.yaml", PRICED + images(3, qps=1).replace("thing 0", "FAIL-TEST"))
    with sandbox(*FAST) as box:
        desk.env = box.env
        desk.job("job.yaml", "--max-cost", "8")
        summary = desk.job("job.yaml", "--max-cost", "8")
        assert summary["counts"] == {"failed": 1, "done": 2}
        assert json.loads(desk.run("status", "job.yaml", "--json").stdout)["cost"] == 8


@pytest.mark.slow
def test_daily_cap_applies_to_all_jobs_of_account(desk):
    desk.write("one.yaml", PRICED + images(3))
    desk.write("two.yaml", PRICED + images(3).replace("thing", "other"))
    with sandbox(*FAST) as box:
        desk.env = {**box.env, "CHANJING_DAILY_COST": "16"}
        assert desk.job("one.yaml")["exit_code"] == 0
        summary = desk.job("two.yaml")
        assert (summary["exit_code"], summary["counts"]) == (8, {"done": 1, "queued": 2})
        assert box.stats["accepted"] == 4
        assert "day" in summary["reasons"][0]


@pytest.mark.slow
def test_refund_of_yesterday_does_not_raise_todays_cap(desk):
    """A charge that turns out free lowers the day on which it was counted, or today would exceed its cap."""
    desk.write("job.yaml", PRICED + images(6).replace("thing 0", "FAIL-TEST a").replace("thing 1", "FAIL-TEST b"))
    with sandbox("--seconds", "30,40") as box:
        desk.env = {**box.env, "CHANJING_DAILY_COST": "8"}
        process = desk.start("run", "job.yaml")
        until(lambda: box.stats["accepted"] == 2)
        process.send_signal(signal.SIGINT)  # a kill could leave a claim behind that the cap was about to refuse
        process.communicate(timeout=40)
        (accounts,) = (desk.root / "home/accounts").glob("*/jobs.db")
        with closing(sqlite3.connect(accounts)) as database, database:
            database.execute("update spent set day = '2000-01-01'")
        box.change(seconds=[0.0, 0.1])
        for _ in range(2):
            summary = desk.job("job.yaml")
            assert (summary["exit_code"], summary["counts"]) == (8, {"failed": 2, "done": 2, "queued": 2})
            assert box.stats["accepted"] == 4


@pytest.mark.slow
def test_unpriced_task_is_not_bought_under_a_cap(desk):
    desk.write("job.yaml", images(2))
    with sandbox(*FAST) as box:
        desk.env = box.env
        done = desk.run("run", "job.yaml", "--max-cost", "100")
        assert (done.returncode, box.stats["accepted"]) == (2, 0)
        assert "nobody knows what kling-v2-1 costs" in done.stderr
        desk.write("capped.yaml", images(2).replace("limits: {", "limits: {max_cost: 5, "))
        done = desk.run("plan", "capped.yaml")
        assert done.returncode == 2
        assert "capped.yaml:8:20" in done.stderr


@pytest.mark.slow
def test_invalid_cap_is_reported_before_any_request(desk):
    desk.write("job.yaml", images(2))
    with sandbox(*FAST) as box:
        done = desk.run("run", "job.yaml", env={**box.env, "CHANJING_DAILY_COST": "lots"})
        assert (done.returncode, box.requests()) == (7, 0)
        assert "CHANJING_DAILY_COST" in done.stderr
