"""The verbs for repair: reconcile, audit, verify, recover."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import struct
import urllib.request
from contextlib import closing

import pytest

from .conftest import buy_before, images, sandbox, until
from .test_backups import bought_and_put_back

FAST = ("--seconds", "0.1,0.4")
CHANJING = ("chanjing", "kling-v2-1")
KLING = ("kling", "image/kling-v2-1")


def post(url: str, body: dict, **headers: str) -> dict:
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers, method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def audit(desk, *words: str, env=None) -> dict:
    done = desk.run("audit", "job.yaml", "--json", *words, env=env)
    report = json.loads(done.stdout)
    assert report["exit_code"] == done.returncode
    return report


# reconcile


@pytest.mark.slow
@pytest.mark.parametrize(("provider", "model"), [CHANJING, KLING])
def test_reconcile_finds_tasks_in_doubt_and_buys_nothing(desk, provider, model):
    """Reconcile finds what a killed run left in doubt and buys nothing.

    The account has bought before: at its first purchases what the kill kept from leaving may stay in doubt.
    """
    desk.write("job.yaml", images(6, provider=provider, model=model))
    with sandbox(*FAST, "--fault", "slow_reply=1", "--slow-s", "20") as box:
        bought = buy_before(desk, box, provider, model)
        process = desk.start("run", "job.yaml", env=box.env)
        until(lambda: box.stats["accepted"] >= bought + 4)
        process.kill()
        process.communicate()
        accepted = box.stats["accepted"]
        done = desk.run("reconcile", "job.yaml", "--json", env=box.env)
        report = json.loads(done.stdout)
        assert (done.returncode, report["submitted"]) == (5, 0), "the job is not done: other tasks wait to be bought"
        assert "runner run goes on" in report["reasons"][0]
        assert report["adopted"] >= 1
        assert box.stats["accepted"] == accepted
        box.change(faults={})
        assert desk.job(env=box.env)["counts"] == {"done": 6}
        assert box.stats["accepted"] == bought + 6


# audit


@pytest.mark.slow
@pytest.mark.parametrize(("provider", "model"), [CHANJING, KLING])
def test_audit_of_clean_job_finds_nothing(desk, provider, model):
    desk.write("job.yaml", images(4, provider=provider, model=model))
    with sandbox(*FAST, "--fault", "lost_reply=@2") as box:
        desk.env = box.env
        desk.job()
        report = audit(desk)
        assert report["findings"] == []
        assert report["strangers"] == 0
        assert report["charged"] == (16 if provider == "chanjing" else None)


@pytest.mark.slow
def test_audit_finds_request_delivered_twice(desk):
    desk.write("job.yaml", images(2, provider="kling", model="image/kling-v2-1"))
    with sandbox(*FAST, "--no-external-id-unique") as box:
        desk.env = box.env
        desk.job()
        twice = box.accepted[0]
        key = {"Authorization": f"Bearer {box.env['KLING_API_KEY']}", "Content-Type": "application/json"}
        again = post(f"{box.url}/v1/images/generations", twice["request"], **key)
        report = audit(desk)
        (finding,) = report["findings"]
        assert (finding["kind"], finding["remote_id"]) == ("duplicate", again["data"]["task_id"])
        assert report["exit_code"] == 4


@pytest.mark.slow
def test_audit_distinguishes_unrelated_from_duplicates(desk):
    """An audit distinguishes unrelated tasks from duplicates by what the list shows."""
    desk.write("job.yaml", images(2))
    with sandbox(*FAST) as box:
        desk.env = box.env
        desk.job()
        credentials = {"app_id": box.env["CHANJING_APP_ID"], "secret_key": box.env["CHANJING_SECRET_KEY"]}
        token = post(f"{box.url}/open/v1/access_token", credentials)["data"]["access_token"]
        ours = box.accepted[0]["request"]
        submit = f"{box.url}/open/v1/ai_creation/task/submit"
        post(submit, ours, access_token=token)
        post(submit, {**ours, "ref_prompt": "somebody else's idea"}, access_token=token)
        report = audit(desk)
        assert [finding["kind"] for finding in report["findings"]] == ["duplicate"]
        assert report["strangers"] == 1


@pytest.mark.slow
def test_audit_reports_providers_without_list(desk):
    desk.write("job.yaml", images(2, provider="kling-gateway", model="image/kling-v1-5"))
    with sandbox(*FAST) as box:
        desk.env = box.env
        desk.job()
        report = audit(desk)
        assert report["exit_code"] == 0
        assert "console" in report["not_asked"]["kling-gateway"]


@pytest.mark.slow
def test_audit_adopts_in_bulk_what_names_our_references(desk):
    """A state that was put back waits to buy what the list has under its references: one command adopts it all."""
    desk.write("job.yaml", images(8, provider="kling", model="image/kling-v2-1", qps=4))
    with sandbox(*FAST, "--accept-delay-s", "0.3") as box:
        had = bought_and_put_back(desk, box, 8)
        report = audit(desk)
        assert [finding["kind"] for finding in report["findings"]] == ["orphan"] * (8 - had)
        assert all(finding["certain"] for finding in report["findings"])
        told = desk.run("audit", "job.yaml").stdout
        assert f"{8 - had} tasks by our references: runner audit job.yaml --adopt" in told
        report = audit(desk, "--adopt")
        assert (report["exit_code"], report["findings"], len(report["adopted"])) == (0, [], 8 - had)
        assert desk.job()["counts"] == {"done": 8}
        assert box.stats["accepted"] == 8


@pytest.mark.slow
def test_audit_compares_what_waits_to_be_bought(desk):
    """Without references a row may only look like a task that the state calls never bought: it is told."""
    desk.write("job.yaml", images(8, qps=4))
    with sandbox(*FAST, "--accept-delay-s", "0.3") as box:
        had = bought_and_put_back(desk, box, 8)
        report = audit(desk)
        assert len(report["findings"]) == 8 - had
        assert not any(finding["certain"] for finding in report["findings"])
        assert {finding["why"] for finding in report["findings"]} == {"looks like a task that waits to be bought"}


@pytest.mark.slow
def test_audit_tells_equal_files_of_an_adopted_task(desk):
    desk.write("job.yaml", images(3))
    with sandbox(*FAST) as box:
        desk.env = box.env
        desk.job()
        with closing(sqlite3.connect(desk.root / "out/job/.runner/state.db")) as state, state:
            state.execute("update output set sha256 = 'same' where task_id < 3")
        assert audit(desk)["findings"] == [], "neither was adopted: the provider made the same twice"
        with closing(sqlite3.connect(desk.root / "out/job/.runner/state.db")) as state, state:
            state.execute("update task set adopted = 1 where id = 2")
        (finding,) = audit(desk)["findings"]
        assert (finding["kind"], finding["key"]) == ("equal", desk.results()[1]["key"])


# verify


@pytest.mark.slow
def test_verify_fetches_missing_files_and_overwrites_nothing(desk):
    """Verify fetches missing or changed files and overwrites nothing."""
    desk.write("job.yaml", images(4))
    with sandbox(*FAST) as box:
        desk.env = box.env
        desk.job()
        files = [desk.root / "out/job" / line["outputs"][0]["file"] for line in desk.results()]
        files[0].unlink()
        files[1].write_bytes(b"edited")
        done = desk.run("verify", "job.yaml", "--json")
        report = json.loads(done.stdout)
        assert (done.returncode, report["submitted"], report["downloaded"]) == (0, 0, 2)
        assert box.stats["accepted"] == 4
        assert files[0].exists()
        assert files[1].read_bytes() == b"edited"
        again = json.loads(desk.run("verify", "job.yaml", "--json").stdout)
        assert again["downloaded"] == 0


# recover


def finished(desk, box, count: int = 6) -> None:
    desk.write("job.yaml", images(count))
    desk.env = box.env
    assert desk.job()["counts"] == {"done": count}


DAMAGE = {
    "deleted": lambda state: state.unlink(),
    "cut to nothing": lambda state: state.write_bytes(b""),
    "garbage": lambda state: state.write_bytes(b"no database at all" * 500),
    "flipped": lambda state: state.write_bytes(state.read_bytes()[:4096] + bytes(4096) + state.read_bytes()[8192:]),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_missing_or_broken_database_is_never_recreated(desk, damage):
    with sandbox(*FAST) as box:
        finished(desk, box)
        state = desk.root / "out/job/.runner/state.db"
        for companion in ("state.db-wal", "state.db-shm"):
            state.with_name(companion).unlink(missing_ok=True)
        DAMAGE[damage](state)
        requests = box.requests()
        refused = desk.run("run", "job.yaml")
        assert refused.returncode == 13, refused.stderr
        assert "recover" in refused.stderr
        assert box.requests() == requests
        assert desk.run("recover", "job.yaml").returncode == 0
        assert list(state.parent.glob("state.db.before-*")) or damage == "deleted"
        again = desk.job()
        assert again["counts"] == {"done": 6}
        assert again["submitted"] == again["downloaded"] == 0
        assert box.stats["accepted"] == 6


@pytest.mark.slow
def test_old_database_is_refused_and_rebuilt(desk):
    with sandbox(*FAST) as box:
        finished(desk, box, 3)
        hidden = desk.root / "out/job/.runner"
        shutil.copy(hidden / "state.db", desk.root / "yesterday.db")
        finished(desk, box, 6)
        shutil.copy(desk.root / "yesterday.db", hidden / "state.db")
        for companion in ("state.db-wal", "state.db-shm"):
            (hidden / companion).unlink(missing_ok=True)
        assert desk.run("run", "job.yaml").returncode == 13
        assert desk.run("recover", "job.yaml").returncode == 0
        assert desk.job()["submitted"] == 0
        assert box.stats["accepted"] == 6


@pytest.mark.slow
@pytest.mark.parametrize("left", [0.0, 0.5])
def test_truncated_journal_is_refused(desk, left):
    """A journal that is shorter than a broken database knows is refused: a rebuild from it would buy tasks again."""
    with sandbox(*FAST) as box:
        finished(desk, box)
        hidden = desk.root / "out/job/.runner"
        journal, state = hidden / "journal.jsonl", hidden / "state.db"
        whole, database = journal.read_bytes(), state.read_bytes()
        lines = whole.splitlines(keepends=True)
        journal.write_bytes(b"".join(lines[: int(len(lines) * left)]))
        assert desk.run("run", "job.yaml").returncode == 13
        state.write_bytes(_with_damaged_page(database))
        for verb in ("run", "recover", "run"):
            refused = desk.run(verb, "job.yaml")
            assert refused.returncode == 13
        assert "Put back a good copy" in desk.run("recover", "job.yaml").stderr
        assert box.stats["accepted"] == 6
        journal.write_bytes(whole)
        assert desk.run("recover", "job.yaml").returncode == 0
        assert desk.job()["submitted"] == 0


def _with_damaged_page(database: bytes) -> bytes:
    """Return a database that fails its check, while the row of its job can still be read."""
    (pages,) = struct.unpack(">I", database[28:32])
    root = next(number for number in range(2, pages + 1) if b"thing" in database[(number - 1) * 4096 : number * 4096])
    return database[: (root - 1) * 4096] + b"\x7f" * 4096 + database[root * 4096 :]


LOSSES = {
    "deleted": lambda lines: None,
    "empty": lambda lines: b"",
    "half": lambda lines: b"".join(lines[: len(lines) // 2]),
    "one line": lambda lines: lines[0],
    "damaged": lambda lines: b"".join([b"XX" + lines[0][2:], *lines[1:]]),
    "garbage": lambda lines: b"no journal at all\n" * 900,
}


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_lost_journal_is_written_anew_from_the_state(desk, loss):
    """The job goes on, buys nothing twice, and its account still refuses a copy from before the recovery."""
    desk.write("job.yaml", images(20, qps=10))
    desk.env = {}
    with sandbox(*FAST, "--fault", "lost_reply=@3,7") as box:
        desk.env = box.env
        process = desk.start("run", "job.yaml")
        until(lambda: box.stats["accepted"] >= 10)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        hidden = desk.root / "out/job/.runner"
        shutil.copytree(hidden, desk.root / "copy")
        journal = hidden / "journal.jsonl"
        left = LOSSES[loss](journal.read_bytes().splitlines(keepends=True))
        journal.unlink() if left is None else journal.write_bytes(left)
        refused = desk.run("run", "job.yaml")
        assert refused.returncode == 13
        assert "runner recover" in refused.stderr
        told = desk.run("recover", "job.yaml", "--json")
        assert told.returncode == 0, told.stderr
        assert json.loads(told.stdout)["rebuilt"] == "journal"
        assert len(list(hidden.glob("journal.jsonl.before-*"))) == bool(left)
        assert desk.job()["counts"] == {"done": 20}
        assert box.stats["accepted"] == 20
        # the copy has not what was bought since, whether its journal is there or written anew once more
        shutil.rmtree(hidden)
        shutil.copytree(desk.root / "copy", hidden)
        for _ in range(3):
            assert desk.run("run", "job.yaml").returncode == 13
        journal.unlink()
        assert desk.run("recover", "job.yaml").returncode == 0
        refused = desk.run("run", "job.yaml")
        assert refused.returncode == 13
        assert "put back from a copy" in refused.stderr
        assert box.stats["accepted"] == 20


@pytest.mark.slow
def test_damaged_line_is_refused_unless_torn_at_end(desk):
    """A damaged line in the middle is refused, and a torn last line is not."""
    with sandbox(*FAST) as box:
        finished(desk, box)
        hidden = desk.root / "out/job/.runner"
        journal = hidden / "journal.jsonl"
        whole = journal.read_bytes()
        journal.write_bytes(whole + b'00000000 {"t":"int')
        assert desk.job()["submitted"] == 0
        whole = journal.read_bytes()
        middle = len(whole) // 2
        journal.write_bytes(whole[:middle] + b"X" + whole[middle + 1 :])
        (hidden / "state.db").unlink()
        refused = desk.run("recover", "job.yaml")
        assert refused.returncode == 13
        assert "damaged line" in refused.stderr


@pytest.mark.slow
def test_recovery_in_mid_job_pays_nothing_twice(desk):
    desk.write("job.yaml", images(20, qps=10))
    with sandbox(*FAST, "--fault", "lost_reply=@3,7") as box:
        process = desk.start("run", "job.yaml", env=box.env)
        until(lambda: box.stats["accepted"] >= 10)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        (desk.root / "out/job/.runner/state.db").unlink()
        for companion in ("state.db-wal", "state.db-shm"):
            (desk.root / "out/job/.runner" / companion).unlink(missing_ok=True)
        assert desk.run("recover", "job.yaml", env=box.env).returncode == 0
        assert desk.job(env=box.env)["counts"] == {"done": 20}
        assert box.stats["accepted"] == 20
        assert box.stats["duplicates"] == 0


@pytest.mark.slow
def test_results_without_state_are_not_bought_again(desk):
    with sandbox(*FAST) as box:
        finished(desk, box, 2)
        shutil.rmtree(desk.root / "out/job/.runner")
        refused = desk.run("run", "job.yaml")
        assert refused.returncode == 13
        assert "results.jsonl" in refused.stderr
        assert box.stats["accepted"] == 2


def test_recover_without_sent_requests_is_exit_13(desk):
    desk.write("job.yaml", images(1))
    done = desk.run("recover", "job.yaml")
    assert done.returncode == 13
    assert "Traceback" not in done.stderr
