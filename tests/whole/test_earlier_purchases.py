"""What was bought in another directory of the account is linked, fetched or left alone, and never bought again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal

import pytest

from runner.sandbox.state import FAILING

from .conftest import images, sandbox, until

FAST, SLOW = ("--seconds", "0.0,0.1"), ("--seconds", "30,40")
KLING = {"provider": "kling", "model": "image/kling-v2-1"}
PRICED = "retry: {doubt: 1s}\ncost: 4"


@pytest.fixture
def box():
    with sandbox(*FAST) as made:
        yield made


@pytest.fixture
def bought(desk, box):
    """Buy six images in `out/job`, and return the sandbox."""
    desk.env = box.env
    desk.write("job.yaml", images(6, more=PRICED, **KLING))
    assert desk.job("job.yaml")["submitted"] == 6
    return box


def linked(desk, directory: str) -> list[dict]:
    """Return the results that another job has paid for, after a check of their files."""
    lines = [line for line in desk.results(directory) if line["bought_in"]]
    for line in lines:
        assert (line["state"], line["cost"] or 0, line["attempts"]) == ("done", 0, 0)
        (output,) = line["outputs"]
        assert (desk.root / directory / output["file"]).stat().st_size == output["bytes"]
    return lines


def killed(desk, *words: str, env: dict[str, str]) -> None:
    """Run the command until a failpoint kills it."""
    done = desk.run(*words, env=env)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_another_directory_links_and_pays_nothing(desk, bought):
    summary = desk.job("job.yaml", "--out", "out/other")
    assert (summary["exit_code"], summary["counts"], summary["submitted"]) == (0, {"done": 6}, 0)
    assert (summary["linked"], summary["cost"], bought.stats["accepted"]) == (6, 0, 6)
    assert summary["linked_from"] == {str(desk.root / "out/job"): 6}
    lines = linked(desk, "out/other")
    assert {line["remote_id"] for line in lines} == {line["remote_id"] for line in desk.results()}
    mine, theirs = desk.root / "out/other" / lines[0]["outputs"][0]["file"], desk.root / "out/job"
    assert mine.samefile(theirs / lines[0]["outputs"][0]["file"])
    again = desk.job("job.yaml", "--out", "out/other")
    assert (again["linked"], again["submitted"], again["counts"]) == (0, 0, {"done": 6})


@pytest.mark.slow
def test_renamed_manifest_with_one_row_more_buys_one(desk, bought):
    desk.write("posters.yaml", images(7, more=PRICED, **KLING))
    plan = json.loads(desk.run("plan", "posters.yaml", "--json").stdout)
    assert (plan["linked"], plan["new"], plan["cost"]) == (6, 1, 4)
    text = desk.run("plan", "posters.yaml").stdout
    assert f"6 of 7 were bought before in {desk.root / 'out/job'} (" in text
    assert "linked, 0 to pay. --buy-again buys them anew" in text
    tasks = [json.loads(line) for line in desk.run("plan", "posters.yaml", "--tasks", "--json").stdout.splitlines()]
    assert [task["plan"] for task in tasks if "plan" in task] == ["linked"] * 6 + ["new"]
    done = desk.run("run", "posters.yaml")
    assert (done.returncode, bought.stats["accepted"]) == (0, 7)
    assert "1 submitted, 1 file" in done.stdout
    assert "6 linked" in done.stdout
    assert f"6 bought before in {desk.root / 'out/job'}: nothing to pay" in done.stdout


@pytest.mark.slow
def test_text_that_differs_unseen_buys_nothing(desk, bought):
    text = images(6, more=PRICED, **KLING)
    desk.write("edited.yaml", re.sub(r"subject: (thing \d)", r'subject: "  \1 "', text))
    assert desk.job("edited.yaml")["linked"] == 6
    assert bought.stats["accepted"] == 6


@pytest.mark.slow
def test_plan_keeps_own_purchases_before_linked_ones(desk, bought):
    desk.job("job.yaml", "--out", "out/other")
    text = images(6, more=PRICED, **KLING)
    desk.write("job.yaml", re.sub(r"subject: (thing \d)", r'subject: "  \1 "', text))
    plan = json.loads(desk.run("plan", "job.yaml", "--json").stdout)
    assert (plan["new"], plan["linked"], plan["known"], plan["gone"]) == (0, 0, {"done": 6}, {})


def test_one_row_less_buys_nothing(desk, bought):
    desk.write("fewer.yaml", images(5, more=PRICED, **KLING))
    assert desk.job("fewer.yaml")["linked"] == 5
    assert bought.stats["accepted"] == 6


@pytest.mark.slow
@pytest.mark.parametrize("with_state", [False, True])
def test_copied_folder_buys_nothing(desk, bought, with_state):
    """Without its state the copy finds its own files there already; with it, it is a copy beside the job."""
    shutil.copytree(desk.root / "out/job", desk.root / "copy/out/job")
    shutil.copy(desk.root / "job.yaml", desk.root / "copy/job.yaml")
    if with_state:
        assert desk.job("copy/job.yaml")["submitted"] == 0
        desk.write("copy/job.yaml", images(7, more=PRICED, **KLING))
        done = desk.run("run", "copy/job.yaml")
        assert (done.returncode, bought.stats["accepted"]) == (13, 6)
        return
    shutil.rmtree(desk.root / "copy/out/job/.runner")
    assert desk.run("run", "copy/job.yaml").returncode == 13  # results without a state
    (desk.root / "copy/out/job/results.jsonl").unlink()
    before = {path.name for path in (desk.root / "copy/out/job").iterdir()}
    assert desk.job("copy/job.yaml")["linked"] == 6
    assert bought.stats["accepted"] == 6
    linked(desk, "copy/out/job")
    assert {path.name for path in (desk.root / "copy/out/job").iterdir()} == before | {".runner", "results.jsonl"}


@pytest.mark.slow
@pytest.mark.parametrize("provider", [KLING, {}])
def test_interrupted_job_rests_elsewhere(desk, provider):
    """What is running in a killed job is finished there. The job itself links later what another one bought instead."""
    desk.write("job.yaml", images(8, more="limits: {qps: 50, in_flight: 4}\nretry: {doubt: 1s}", **provider).replace(
        "limits: {qps: 50}\n", ""))  # fmt: skip
    with sandbox(*SLOW) as box:
        desk.env = box.env
        process = desk.start("run", "job.yaml")
        until(lambda: box.stats["accepted"] == 4)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        box.change(seconds=[0.0, 0.1])
        done = desk.run("run", "job.yaml", "--out", "out/other")
        assert (done.returncode, box.stats["accepted"]) == (5, 8)
        assert f"4 rest here, in {desk.root / 'out/job'} they are bought" in done.stdout
        assert "go on there" in done.stdout
        assert [line["state"] for line in desk.results("out/other")].count("queued") == 4
        first = desk.job("job.yaml")
        assert (first["counts"], first["submitted"], first["linked"]) == ({"done": 8}, 0, 4)
        other = desk.job("job.yaml", "--out", "out/other")
        assert (other["counts"], other["submitted"], other["linked"]) == ({"done": 8}, 0, 4)
        assert (box.stats["accepted"], box.stats["duplicates"]) == (8, 0)


@pytest.mark.slow
def test_job_at_work_keeps_what_it_will_buy(desk):
    """Two jobs with the same tasks at the same time: what the first has not bought yet is not bought by the second."""
    desk.write("job.yaml", images(10, qps=1))
    with sandbox(*FAST) as box:
        desk.env = box.env
        process = desk.start("run", "job.yaml")
        until(lambda: box.stats["accepted"] >= 1)
        other = desk.run("run", "job.yaml", "--out", "out/other")
        process.communicate()
        assert other.returncode == 5
        assert (box.stats["accepted"], box.stats["duplicates"]) == (10, 0)
        assert desk.job("job.yaml", "--out", "out/other")["counts"] == {"done": 10}
        assert box.stats["accepted"] == 10


@pytest.mark.slow
@pytest.mark.parametrize("provider", [KLING, {}])
@pytest.mark.parametrize("damage", ["deleted", "changed", "state gone too"])
def test_files_that_are_gone_are_fetched_by_their_id(desk, box, damage, provider):
    desk.env = box.env
    desk.write("job.yaml", images(3, **provider))
    desk.job("job.yaml")
    if damage == "state gone too":
        shutil.rmtree(desk.root / "out/job")
    for file in (desk.root / "out/job").glob("*.png"):
        file.unlink() if damage == "deleted" else file.write_bytes(b"something else")
    summary = desk.job("job.yaml", "--out", "out/other")
    assert (summary["counts"], summary["submitted"], summary["downloaded"]) == ({"done": 3}, 0, 3)
    assert (summary["linked"], box.stats["accepted"]) == (3, 3)
    assert len(linked(desk, "out/other")) == 3
    audit = json.loads(desk.run("audit", "job.yaml", "--out", "out/other", "--json").stdout)
    assert (audit["exit_code"], audit["findings"]) == (0, [])


@pytest.mark.slow
def test_what_nobody_has_any_more_is_told(desk, bought):
    """Another sandbox at the same address: the provider has forgotten, and to buy again is the user's word."""
    for file in (desk.root / "out/job").glob("*.png"):
        file.unlink()
    desk.env = bought.env
    port = bought.url.rpartition(":")[2]
    bought.process.communicate(timeout=20)
    with sandbox(*FAST, "--port", port) as empty:
        summary = desk.job("job.yaml", "--out", "out/other")
        assert (summary["exit_code"], summary["counts"]) == (3, {"stranded": 6})
        assert empty.stats["accepted"] == 0
        text = desk.run("status", "job.yaml", "--out", "out/other").stdout
        assert "--buy-again" in text
        assert desk.job("job.yaml", "--out", "out/other", "--buy-again")["submitted"] == 6


@pytest.mark.slow
def test_two_accounts_share_no_purchases(desk, bought):
    other = {name: f"{value}x" if "KEY" in name else value for name, value in bought.env.items()}
    summary = desk.job("job.yaml", "--out", "out/other", env=other)
    assert (summary["linked"], summary["submitted"]) == (0, 6)


@pytest.mark.slow
def test_new_key_keeps_memory_of_the_same_account(desk, bought):
    """The user says once that the account is the same, in a job that was bought with the old key."""
    new = {name: f"{value}x" if "KEY" in name else value for name, value in bought.env.items()}
    desk.write("later.yaml", images(6, more=PRICED, **KLING).replace("thing", "later"))
    desk.job("later.yaml")
    desk.write("later.yaml", images(7, more=PRICED, **KLING).replace("thing", "later"))
    assert desk.job("later.yaml", "--same-account", env=new)["submitted"] == 1
    plan = json.loads(desk.run("plan", "job.yaml", "--out", "out/other", "--json", env=new).stdout)
    assert plan["linked"] == 6
    assert desk.job("job.yaml", "--out", "out/other", env=new)["linked"] == 6
    assert bought.stats["accepted"] == 13


@pytest.mark.slow
def test_user_can_buy_again_all_or_one(desk, bought):
    assert desk.job("job.yaml", "--out", "out/new", "--buy-again")["submitted"] == 6
    assert desk.job("job.yaml", "--out", "out/other")["linked"] == 6
    one, two = (line["key"][:8] for line in desk.results("out/other")[:2])
    summary = desk.job("job.yaml", "--out", "out/other", "--buy-again", one)
    assert (summary["submitted"], summary["linked"], summary["cost"]) == (1, 0, 4)
    assert desk.job("job.yaml", "--out", "out/third", "--buy-again", one, two)["submitted"] == 2
    assert len(linked(desk, "out/third")) == 4
    assert desk.job("job.yaml", "--out", "out/other", "--buy-again")["submitted"] == 5
    assert bought.stats["accepted"] == 6 + 6 + 1 + 2 + 5
    wrong = desk.run("run", "job.yaml", "--out", "out/third", "--buy-again", one)
    assert (wrong.returncode, "repeat:" in wrong.stderr) == (2, True)
    unknown = desk.run("run", "job.yaml", "--buy-again=ffffffff")
    assert (unknown.returncode, "no task has that key" in unknown.stderr) == (2, True)


@pytest.mark.slow
def test_memory_can_be_ignored(desk, bought):
    assert desk.job("job.yaml", "--out", "out/other", "--elsewhere", "ignore")["submitted"] == 6


@pytest.mark.slow
def test_old_purchases_are_told_and_bought_again(desk, bought):
    desk.write("later.yaml", images(6, more="retry: {doubt: 1s, remember: 1s}", **KLING))
    until(lambda: json.loads(desk.run("plan", "later.yaml", "--json").stdout)["linked"] == 0)
    done = desk.run("run", "later.yaml", "--json")
    assert json.loads(done.stdout)["submitted"] == 6
    assert f"6 tasks bought before in {desk.root / 'out/job'}, longer ago than retry.remember" in done.stderr


@pytest.mark.slow
def test_failed_purchases_are_bought(desk, box):
    desk.env = box.env
    desk.write("job.yaml", images(2, **KLING).replace("thing", FAILING))
    assert desk.job("job.yaml")["counts"] == {"failed": 2}
    assert desk.job("job.yaml", "--out", "out/other")["submitted"] == 2


@pytest.mark.slow
def test_linked_files_are_fetched_again_when_lost(desk, bought):
    """A linked task stays one that another job has paid for."""
    desk.job("job.yaml", "--out", "out/other")
    for file in (desk.root / "out/other").glob("*.png"):
        file.unlink()
    summary = desk.job("job.yaml", "--out", "out/other")
    assert (summary["counts"], summary["submitted"], summary["downloaded"]) == ({"done": 6}, 0, 6)
    assert len(linked(desk, "out/other")) == 6
    assert bought.stats["accepted"] == 6


@pytest.mark.slow
def test_memory_of_older_jobs_and_lost_memory_is_filled(desk, bought):
    """A memory that was never there, as before an update, or was deleted, is read from the jobs' own states."""
    (memory,) = (desk.root / "home").glob("accounts/*/bought.db")
    memory.unlink()
    assert desk.job("job.yaml", "--out", "out/other")["linked"] == 6
    (memory,) = (desk.root / "home").glob("accounts/*/bought.db")
    assert memory.stat().st_mode & 0o777 == 0o600
    memory.write_bytes(b"no database" * 100)
    done = desk.run("run", "job.yaml", "--out", "out/third")
    assert (done.returncode, bought.stats["accepted"]) == (13, 6)
    assert "Move it away: it is filled again" in done.stderr


@pytest.mark.slow
def test_rebuilt_state_keeps_links(desk, bought):
    desk.job("job.yaml", "--out", "out/other")
    before = desk.results("out/other")
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        (desk.root / "out/other/.runner" / name).unlink(missing_ok=True)
    assert desk.run("recover", "job.yaml", "--out", "out/other").returncode == 0
    again = desk.job("job.yaml", "--out", "out/other")
    assert (again["counts"], again["submitted"], bought.stats["accepted"]) == ({"done": 6}, 0, 6)
    for old, new in zip(before, desk.results("out/other"), strict=True):
        assert {**new, "queued_at": None, "finished_at": None} == {**old, "queued_at": None, "finished_at": None}


@pytest.mark.slow
@pytest.mark.parametrize("point", ["files linked:3", "linked journaled:1", "linked committed:1"])
def test_kill_while_linking_loses_and_buys_nothing(desk, bought, point):
    killed(desk, "run", "job.yaml", "--out", "out/other", env={"RUNNER_CRASH_AT": point})
    summary = desk.job("job.yaml", "--out", "out/other")
    assert (summary["counts"], summary["submitted"], bought.stats["accepted"]) == ({"done": 6}, 0, 6)
    assert len(linked(desk, "out/other")) == 6
    assert len(list((desk.root / "out/other").glob("*.png"))) == 6
    assert not list((desk.root / "out/other/.runner/parts").glob("*"))


@pytest.mark.slow
def test_kill_while_recording_loses_and_buys_nothing(desk, box):
    """What was not recorded the account learns from the job's own state, when its next run begins."""
    desk.env = box.env
    desk.write("job.yaml", images(6, **KLING))
    killed(desk, "run", "job.yaml", env={"RUNNER_CRASH_AT": "purchases written:1"})
    (memory,) = (desk.root / "home").glob("accounts/*/bought.db")
    memory.unlink()
    (memory.parent / "bought.db-journal").unlink(missing_ok=True)
    assert desk.job("job.yaml", "--out", "out/other")["linked"] == 6
    assert (desk.job("job.yaml")["counts"], box.stats["accepted"]) == ({"done": 6}, 6)


@pytest.mark.slow
def test_embedded_sandbox_remembers_nothing(desk):
    """What is pretended in one directory must not be linked in another, and no account hears of it."""
    desk.write("job.yaml", images(2))
    assert desk.job("job.yaml", "--sandbox")["submitted"] == 2
    assert desk.job("job.yaml", "--sandbox")["submitted"] == 0
    assert desk.job("job.yaml", "--sandbox", "--out", "out/other")["submitted"] == 2
    assert not list((desk.root / "home").glob("accounts/*/bought.db"))


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="files of another user need root")
def test_unreadable_directory_is_fetched(desk, box):
    desk.env = box.env
    desk.write("job.yaml", images(2, **KLING))
    desk.job("job.yaml")
    for file in (desk.root / "out/job").glob("*.png"):
        file.unlink()
        file.symlink_to("/etc/passwd")
    summary = desk.job("job.yaml", "--out", "out/other")
    assert (summary["counts"], summary["linked"], summary["downloaded"]) == ({"done": 2}, 2, 2)
    assert not [path for path in (desk.root / "out/other").iterdir() if path.is_symlink()]
