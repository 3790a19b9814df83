"""Directories that are removed under a run: no id is lost, and nothing more is bought."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.whole.conftest import images, sandbox, until
from tests.whole.test_restored import KINDS

TASKS = 12


def begin(desk, box, provider: str):
    """Start a run, and return it when three tasks were accepted and others are on the wire."""
    desk.env = box.env
    desk.write("job.yaml", images(TASKS, provider=provider, model=KINDS[provider], qps=3))
    process = desk.start("run", "job.yaml")
    until(lambda: box.stats["accepted"] >= 3)
    return process


@pytest.mark.slow
@pytest.mark.parametrize(("provider", "removed", "found"), [
    ("kling", "out/job/.runner", "out/job"),
    ("chanjing", "out/job/.runner", "out/job"),
    ("kling-gateway", "out", "home"),
])  # fmt: skip
def test_removed_state_is_rescued_and_buys_nothing(desk, provider, removed, found):
    """`rm -rf` while answers are under way: each id is in the rescued journal, and `recover` makes a state of it."""
    with sandbox("--seconds", "0.1,0.3", "--accept-delay-s", "1.0") as box:
        process = begin(desk, box, provider)
        before = box.stats["accepted"]
        shutil.rmtree(desk.root / removed)
        out, err = process.communicate(timeout=60)
        bought = box.stats["accepted"]
        assert process.returncode == 13, (out, err)
        assert bought <= before + 8, "only what was on the wire"
        (rescued,) = (desk.root / found).glob("rescued-journal-*.jsonl")
        assert str(rescued) in err
        text = rescued.read_text()
        assert all(task["id"] in text for task in box.accepted)
        assert desk.run("run", "job.yaml").returncode == 13
        assert box.stats["accepted"] == bought, "refused: its state is gone"
        shutil.rmtree(desk.root / "out/job/.runner", ignore_errors=True)
        (desk.root / "out/job/.runner").mkdir(parents=True)
        rescued.rename(desk.root / "out/job/.runner/journal.jsonl")
        assert desk.run("recover", "job.yaml").returncode == 0
        done = desk.run("run", "job.yaml", "--json")
        assert json.loads(done.stdout)["counts"] == {"done": TASKS}, done.stderr
        assert box.stats["accepted"] == TASKS


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["kling", "chanjing"])
def test_removed_home_stops_purchases_and_keeps_ids(desk, provider):
    with sandbox("--seconds", "0.1,0.3", "--accept-delay-s", "1.0") as box:
        process = begin(desk, box, provider)
        before = box.stats["accepted"]
        shutil.rmtree(desk.root / "home")
        out, err = process.communicate(timeout=60)
        bought = box.stats["accepted"]
        assert (process.returncode, bought <= before + 8) == (13, True), (out, err)
        assert "was removed while the job ran" in err
        journal = (desk.root / "out/job/.runner/journal.jsonl").read_text()
        assert all(task["id"] in journal for task in box.accepted)
        assert desk.run("run", "job.yaml").returncode == 13
        assert box.stats["accepted"] == bought
        assert desk.run("adopt-state", "job.yaml", "--yes").returncode == 0
        assert desk.job()["counts"] == {"done": TASKS}
        assert box.stats["accepted"] == TASKS


@pytest.mark.slow
def test_state_moved_under_a_run_is_not_bought_into(desk):
    """`mv` is no loss: the state goes on where it is now."""
    with sandbox("--seconds", "0.1,0.3", "--accept-delay-s", "1.0") as box:
        process = begin(desk, box, "kling")
        (desk.root / "out").rename(desk.root / "moved")
        process.communicate(timeout=60)
        assert process.returncode == 13
        done = desk.run("run", "job.yaml", "--out", "moved/job", "--json")
        assert json.loads(done.stdout)["counts"] == {"done": TASKS}
        assert box.stats["accepted"] == TASKS
