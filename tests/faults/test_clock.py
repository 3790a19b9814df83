"""FC1 and FC2: a wall clock that jumps, and one that is wrong. FC3 is tested with FP9, FC4 with FP10."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing

import pytest

from tests.faults.chain import chain, request
from tests.faults.conftest import FAST, ended, images, reaches, sandbox
from tests.faults.server import answer, instead
from tests.simulation.faults import DAY, Crash, Life, Plan
from tests.simulation.world import play

FAR = 40 * 365 * DAY


@pytest.mark.parametrize("jump", [DAY, -DAY, 3600.0, -3600.0, FAR, -FAR], ids=lambda jump: f"{jump / 3600:+.0f}h")
@pytest.mark.parametrize("kind", ["kling", "chanjing"])
def test_fc01_clock_jump_changes_no_wait_and_no_deadline(kind, jump):
    """The clock jumps between two runs, with a task in doubt. -40 years is 1970, the clock of a machine after boot.

    In this world no task is lost three times. The simulation checks after every event that no task counts as absent
    before the quiet time, in true time.
    """
    lives = (
        Life(crash=Crash("answer received", 2), pause=5.0, wall_jump=jump),
        Life(crash=Crash("intent committed", 2), pause=5.0, wall_jump=-2 * jump),
        Life(wall_jump=jump),
    )
    plan = Plan(seed=2, kind=kind, prompts=5, doubt=40.0, submit={"lost": 0.2, "answer_lost": 0.2}, lives=lives)
    report = play(plan)
    assert report.violation is None
    assert report.crashes.total() == 2
    assert report.states == {"done": 5}


JUMPING = """
import time
wall, began = time.time, time.monotonic()
time.time = lambda: wall() + ({jump} if time.monotonic() - began > 0.9 else 0.0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("jump", [86_400.0, -1.6e9], ids=["tomorrow", "1970"])
def test_fc01_clock_jump_during_run_changes_nothing(rig, jump):
    rig.write("job.yaml", images(8, qps=8))
    with sandbox(*FAST, "--fault", "lost_reply=@4") as box:
        code, summary, err = ended(rig.sick(JUMPING.format(jump=jump), "run", "job.yaml", "--json", env=box.env))
        assert (code, summary.get("counts")) == (0, {"done": 8}), err
        assert 0 < summary["seconds"] < 30
        rig.paid_once(box, 8)


SKEWED = """
import time
wall = time.time
time.time = lambda: wall() + {skew}
"""


def with_keys(box):
    """Return settings with a pair of keys, which sign requests by the clock."""
    return {"KLING_BASE_URL": box.url, "KLING_ACCESS_KEY": "sandbox-ak", "KLING_SECRET_KEY": "sandbox-sk"}


def skewed(rig, skew, env):
    return ended(rig.sick(SKEWED.format(skew=skew), "run", "job.yaml", "--json", env=env))


@pytest.mark.slow
def test_fc02_jwt_uses_server_clock(rig):
    """The sandbox refuses with 1003 (not yet valid) and sends its date. The client learns its skew from one refusal."""
    rig.write("job.yaml", images(3, provider="kling", model="image/kling-v2-1"))
    with sandbox(*FAST) as box:
        code, summary, err = skewed(rig, 240.0, with_keys(box))
        assert (code, summary.get("counts")) == (0, {"done": 3}), err
        assert box.stats["refused"]["1003"] == 1
        assert err.count("clock") == 1, "reported once, not with each request"
        rig.paid_once(box, 3)


@pytest.mark.slow
@pytest.mark.parametrize("skew", [-120.0, 7200.0], ids=lambda skew: f"{skew:+.0f}s")
def test_fc02_clock_wrong_by_minutes_is_reported(rig, skew):
    """An API key does not depend on the clock, so the run continues."""
    rig.write("job.yaml", images(3, provider="kling", model="image/kling-v2-1"))
    with sandbox(*FAST) as box:
        code, summary, err = skewed(rig, skew, box.env)
        assert (code, summary.get("counts")) == (0, {"done": 3}), err
        reported = re.search(rf"clock is (\d+) s {'ahead of' if skew > 0 else 'behind'} kling's", err)
        assert reported, err
        assert 0 <= abs(skew) - int(reported[1]) <= 3, "but for the header's whole seconds"
        assert err.count("clock") == 1


@pytest.mark.slow
@pytest.mark.parametrize("skew", [7200.0, -600.0], ids=lambda skew: f"{skew:+.0f}s")
def test_fc02_clock_wrong_by_hours_stops_run_before_purchase(rig, skew):
    """A signature would be valid ten minutes behind. A larger error must be reported to the user first."""
    rig.write("job.yaml", images(3, provider="kling", model="image/kling-v2-1"))
    with sandbox(*FAST) as box:
        code, summary, err = skewed(rig, skew, with_keys(box))
        assert (code, box.stats["accepted"]) == (7, 0), err
        (reason,) = summary["reasons"][:1]
        assert "clock" in reason
        assert "timedatectl" in reason
        assert summary["counts"] == {"queued": 3}
        rig.finishes(box, 3)  # once the clock is right


@pytest.mark.slow
def test_fc02_paid_tasks_finish_by_server_clock(rig):
    """Paid tasks are polled and downloaded by the server's clock even if ours is wrong."""
    rig.write("job.yaml", images(2, provider="kling", model="image/kling-v2-1"))
    with sandbox("--seconds", "2,2") as box:
        process = rig.start("run", "job.yaml", "--json", env=with_keys(box))
        reaches(process, lambda: box.stats["accepted"] == 2)
        process.kill()
        process.communicate()
        box.change(seconds=[0, 0])
        rig.write("job.yaml", images(4, provider="kling", model="image/kling-v2-1"))
        code, summary, err = skewed(rig, 7200.0, with_keys(box))
        assert code == 7, err
        assert summary["counts"] == {"done": 2, "queued": 2}
        assert (summary["submitted"], box.stats["accepted"]) == (0, 2)
        rig.finishes(box, 4)


@pytest.mark.slow
@pytest.mark.parametrize("accepted", [True, False])
async def test_fc01_clock_far_ahead_at_the_send_before_a_reboot(tmp_path, accepted):
    """The clock was forty hours ahead when the response was lost: only the job's own start dates the rows."""
    async with chain(tmp_path, "chanjing", workers=1) as ours:
        await ours.elsewhere(request("chanjing", 2))  # a task of somebody else, from before the job
        assert (await ours.run(1)).states == ["done"]
        ours.middle.deeds["submit"] = {2: instead(b"", after=accepted, end="reset")}
        ours.middle.deeds["query"] = instead(answer("", 500), end="open")
        assert (await ours.run(2, deadline=0.5)).states == ["done", "in_doubt"]
        with closing(sqlite3.connect(ours.directory / ".runner" / "state.db")) as state, state:
            state.execute(
                "update task set submitted_at = submitted_at + 144000, sent_boot = 'earlier' where state = 'in_doubt'"
            )
        ours.middle.deeds.clear()
        await ours.elsewhere(*(request("chanjing", number) for number in range(100, 160)))
        result = await ours.run(2)
        states = result.states
        assert states in ((["done", "done"],) if accepted else (["done", "in_doubt"], ["done", "held"])), result.reasons
        assert sum(task.prompt == "boat 2" for task in ours.accepted) == 1 + accepted


@pytest.mark.slow
async def test_fc01_list_is_read_back_by_possible_clock_error(tmp_path):
    """The clock was two hours ahead when the response was lost. After a reboot, other tasks fill the first page."""
    async with chain(tmp_path, "chanjing", workers=1) as ours:
        ours.paid_once(await ours.run(1), 1)
        ours.middle.deeds["submit"] = {2: instead(b"", after=True, end="reset")}
        ours.middle.deeds["query"] = instead(answer("", 500), end="open")
        assert (await ours.run(2, deadline=0.5)).states == ["done", "in_doubt"]
        with closing(sqlite3.connect(ours.directory / ".runner" / "state.db")) as state, state:
            state.execute(
                "update task set submitted_at = submitted_at + 7200, sent_boot = 'earlier' where state = 'in_doubt'"
            )
        ours.middle.deeds.clear()
        await ours.elsewhere(*(request("chanjing", number) for number in range(100, 160)))
        assert (await ours.run(2)).states == ["done", "done"], "the job's own start dates the row, not that clock"
        assert sum(task.prompt == "boat 2" for task in ours.accepted) == 1
