"""States that are not the newest: put back, copied, or going on twice. A run of one buys nothing until adopted."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess

import pytest

from tests.whole.conftest import images, sandbox, until

KINDS = {"kling": "image/kling-v2-1", "chanjing": "kling-v2-1", "kling-gateway": "image/kling-v1-5"}
SLOW = ("--seconds", "0.1,0.3", "--accept-delay-s", "0.3")
TASKS = 10


def buy(desk, box, upto: int) -> None:
    """Run the job until this number was accepted, and stop it."""
    process = desk.start("run", "job.yaml", "--json")
    until(lambda: box.stats["accepted"] >= upto)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=40)


def restore(desk, names, how: str) -> None:
    for name in names:
        place, kept = desk.root / name, desk.root / f"kept {name}"
        shutil.rmtree(place)
        if how == "cp":
            subprocess.run(["cp", "-a", kept, place], check=True)
        elif how == "tar":
            subprocess.run(["tar", "cf", desk.root / "kept.tar", "-C", kept, "."], check=True)
            place.mkdir()
            subprocess.run(["tar", "xf", desk.root / "kept.tar", "-C", place], check=True)
        elif how == "rsync":
            subprocess.run(["rsync", "-a", "--inplace", f"{kept}/", place], check=True)
        else:
            kept.rename(place)


METHODS = ("cp", "tar", *(["rsync"] if shutil.which("rsync") else []), "mv")


@pytest.mark.slow
@pytest.mark.parametrize("provider", KINDS)
@pytest.mark.parametrize("names", [("out",), ("home",), ("out", "home")], ids=["job", "home", "both"])
def test_restored_state_buys_nothing_until_adopted(desk, provider, names):
    """Two tasks were bought after the backup. Afterwards each is known again, where the provider has a list."""
    desk.write("job.yaml", images(TASKS, provider=provider, model=KINDS[provider], qps=2))
    with sandbox(*SLOW) as box:
        desk.env = box.env
        buy(desk, box, 2)
        backup = box.stats["accepted"]
        for name in names:
            shutil.copytree(desk.root / name, desk.root / f"kept {name}")
        buy(desk, box, backup + 2)
        bought = box.stats["accepted"]
        for how in METHODS:
            restore(desk, names, how)
            done = desk.run("run", "job.yaml")
            assert (done.returncode, box.stats["accepted"]) == (13, bought), (how, done.stderr)
            assert "runner adopt-state" in done.stdout + done.stderr
        asked = desk.run("adopt-state", "job.yaml")
        assert (asked.returncode, "nobody can be asked here" in asked.stderr) == (2, True)
        adopted = desk.run("adopt-state", "job.yaml", "--yes", "--json")
        report = json.loads(adopted.stdout)
        assert report["bound"]
        assert report["differences"]
        assert ("kling-gateway" in report["not_asked"]) is (provider == "kling-gateway")
        assert desk.job()["counts"] == {"done": TASKS}
        forgotten = bought - backup if provider == "kling-gateway" and names == ("out", "home") else 0
        assert box.stats["accepted"] == TASKS + forgotten, (
            "only where no record can be read and the account's memory is as old is the user's yes all there is"
        )
        assert desk.job()["submitted"] == 0


@pytest.mark.slow
def test_restored_job_without_memory_is_asked_of_the_list(desk):
    """The account has claimed what the list shows, and knows of no reference: the rows are this job's all the same."""
    desk.write("job.yaml", images(TASKS, provider="chanjing", model=KINDS["chanjing"], qps=2))
    with sandbox(*SLOW) as box:
        desk.env = box.env
        buy(desk, box, 2)
        shutil.copytree(desk.root / "out", desk.root / "kept out")
        buy(desk, box, box.stats["accepted"] + 2)
        restore(desk, ("out",), "cp")
        for memory in desk.root.glob("home/**/bought.db"):
            memory.unlink()
        assert desk.run("run", "job.yaml").returncode == 13
        assert json.loads(desk.run("adopt-state", "job.yaml", "--yes", "--json").stdout)["put_in_doubt"] >= 2
        assert desk.job()["counts"] == {"done": TASKS}
        assert box.stats["accepted"] == TASKS


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["kling-gateway", "chanjing"])
def test_rows_that_came_after_the_backup_are_known_too(desk, provider):
    """The state that was put back has not even their rows: the account's memory has their ids, without any list."""
    desk.write("job.yaml", images(3, provider=provider, model=KINDS[provider]))
    with sandbox("--seconds", "0.1,0.3") as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"done": 3}
        shutil.copytree(desk.root / "out", desk.root / "kept out")
        desk.write("job.yaml", images(5, provider=provider, model=KINDS[provider]))
        assert desk.job()["counts"] == {"done": 5}
        restore(desk, ("out",), "cp")
        assert desk.run("adopt-state", "job.yaml", "--yes").returncode == 0
        assert desk.job()["counts"] == {"done": 5}
        assert box.stats["accepted"] == 5


def clone(desk, name: str) -> None:
    """Replace a directory by a copy of itself."""
    (desk.root / name).rename(desk.root / "old")
    subprocess.run(["cp", "-a", desk.root / "old", desk.root / name], check=True)
    shutil.rmtree(desk.root / "old")


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["kling", "chanjing"])
def test_fenced_run_fetches_and_judges_no_absence(desk, provider):
    """The doubt of a copy stays one: its original may send it again as well."""
    desk.write("job.yaml", images(TASKS, provider=provider, model=KINDS[provider], qps=4, more="retry: {doubt: 3s}"))
    with sandbox("--seconds", "0.1,0.3", "--accept-delay-s", "0.3") as box:
        desk.env = box.env
        buy(desk, box, 3)
        bought = box.stats["accepted"]
        box.change(faults={"reset_before": 1.0})
        process = desk.start("run", "job.yaml")
        until(lambda: json.loads(desk.run("status", "job.yaml", "--json").stdout)["counts"].get("in_doubt"))
        process.kill()
        process.communicate()
        clone(desk, "out")
        for _ in range(2):
            done = desk.run("run", "job.yaml", "--json")
            assert (done.returncode, box.stats["accepted"]) == (13, bought), done.stderr
            counts = json.loads(done.stdout)["counts"]
            assert counts["done"] == bought
            assert counts["in_doubt"] + counts.get("queued", 0) == TASKS - bought
            assert counts["in_doubt"] >= 1
        assert desk.run("reconcile", "job.yaml", "--json").returncode == 13
        box.change(faults={})
        assert desk.run("adopt-state", "out/job", "--yes").returncode == 0
        counts = desk.job()["counts"]
        assert counts["done"] == box.stats["accepted"] <= TASKS, "nothing was bought twice"


@pytest.mark.slow
def test_copy_beside_its_running_original_is_not_adopted(desk):
    """The copy has a home of its own, so that only the binding knows."""
    desk.write("job.yaml", images(TASKS, provider="kling-gateway", model=KINDS["kling-gateway"], qps=2))
    with sandbox(*SLOW) as box:
        desk.env = box.env
        buy(desk, box, 2)
        box.change(seconds=[60.0, 60.0])
        shutil.copytree(desk.root / "out" / "job", desk.root / "copy")
        shutil.copytree(desk.root / "home", desk.root / "home2")
        process, elsewhere = desk.start("run", "job.yaml", "--json"), {"RUNNER_HOME": str(desk.root / "home2")}
        until(lambda: box.stats["accepted"] >= 3)
        done = desk.run("run", "job.yaml", "--out", "copy", env=elsewhere)
        assert done.returncode == 13
        assert "which is still there" in done.stderr
        done = desk.run("adopt-state", "job.yaml", "--out", "copy", "--yes", env=elsewhere)
        assert (done.returncode, "the original runs at this moment" in done.stderr) == (13, True)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=40)
        assert box.stats["accepted"] <= TASKS


@pytest.mark.slow
@pytest.mark.parametrize("own_home", [False, True], ids=["one home", "two homes"])
def test_of_two_clones_only_the_adopted_one_goes_on(desk, own_home):
    desk.write("job.yaml", images(TASKS, provider="kling-gateway", model=KINDS["kling-gateway"], qps=4))
    with sandbox(*SLOW) as box:
        desk.env = box.env
        buy(desk, box, 2)
        bought = box.stats["accepted"]
        shutil.copytree(desk.root / "out" / "job", desk.root / "copy")
        shutil.copytree(desk.root / "home", desk.root / "home2")
        elsewhere = {"RUNNER_HOME": str(desk.root / "home2")} if own_home else {}
        words = ("job.yaml", "--out", "copy")
        assert desk.run("run", *words, env=elsewhere).returncode == 13
        assert desk.run("adopt-state", *words, "--yes", env=elsewhere).returncode == 0
        done = desk.run("run", "job.yaml")
        assert (done.returncode, box.stats["accepted"]) == (13, bought), "the original has been replaced"
        assert "copy" in done.stderr
        assert json.loads(desk.run("run", *words, "--json", env=elsewhere).stdout)["counts"] == {"done": TASKS}
        assert box.stats["accepted"] == TASKS


@pytest.mark.slow
def test_what_is_no_copy_raises_no_alarm(desk):
    """Renamed with its home, rebuilt by `recover`, without a binding as older versions, or never sent."""
    desk.write("job.yaml", images(TASKS, provider="kling", model=KINDS["kling"], qps=3))
    with sandbox(*SLOW) as box:
        desk.env = box.env
        assert desk.run("run", "job.yaml", "--max-cost", "0").returncode in {2, 8}
        buy(desk, box, 2)
        state = desk.root / "out/job/.runner"
        (state / "binding.json").unlink()
        buy(desk, box, box.stats["accepted"] + 1)
        assert (state / "binding.json").exists()
        assert desk.run("recover", "job.yaml").returncode == 0
        (desk.root / "out").rename(desk.root / "elsewhere")
        (desk.root / "home").rename(desk.root / "home2")
        moved = {"RUNNER_HOME": str(desk.root / "home2")}
        done = desk.run("run", "job.yaml", "--out", "elsewhere/job", "--json", env=moved)
        assert json.loads(done.stdout)["counts"] == {"done": TASKS}, done.stderr
        assert box.stats["accepted"] == TASKS
