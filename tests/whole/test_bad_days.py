"""Runs with failures: wrong keys, empty accounts, lost responses, kills. The sandbox's ledger proves what was paid."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import time
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from .conftest import buy_before, images, sandbox, until

FAST = ("--seconds", "0.1,0.4")
CHANJING = ("chanjing", "kling-v2-1")
KLING = ("kling", "image/kling-v2-1")
GATEWAY = ("kling-gateway", "image/kling-v1-5")


def complete_files(desk, directory="out/job"):
    """Check that every file matches its line in the results."""
    for line in desk.results(directory):
        for output in line["outputs"]:
            data = (desk.root / directory / output["file"]).read_bytes()
            assert sha256(data).hexdigest() == output["sha256"]


# credentials and credit


@pytest.mark.slow
@pytest.mark.parametrize(("provider", "model"), [CHANJING, KLING, GATEWAY])
def test_wrong_credentials_are_exit_12_in_three_requests(desk, provider, model):
    desk.write("job.yaml", images(30, provider=provider, model=model))
    with sandbox() as box:
        wrong = {name: value if name.endswith("URL") else "wrong" for name, value in box.env.items()}
        summary = desk.job(env=wrong)
        assert summary["exit_code"] == 12
        assert summary["submitted"] == 0
        assert 1 <= box.requests() <= 3
        assert box.stats["accepted"] == 0
        assert desk.job(env=box.env)["counts"] == {"done": 30}


@pytest.mark.slow
@pytest.mark.parametrize(("provider", "model"), [CHANJING, KLING])
def test_paid_tasks_finish_without_credit(desk, provider, model):
    desk.write("job.yaml", images(8, provider=provider, model=model, qps=20))
    with sandbox(*FAST, "--credit", "3") as box:
        desk.env = box.env
        summary = desk.job()
        assert summary["exit_code"] == 6
        assert summary["counts"] == {"done": 3, "queued": 5}
        box.change(credit=100)
        assert desk.job()["counts"] == {"done": 8}
        assert box.stats["duplicates"] == 0


@pytest.mark.slow
def test_expired_token_is_renewed_once_without_loss(desk):
    desk.write("job.yaml", images(12))
    with sandbox(*FAST, "--token-requests", "7") as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"done": 12}
        assert box.stats["accepted"] == 12


@pytest.mark.slow
def test_jobs_of_one_account_share_one_token(desk):
    desk.write("one.yaml", images(5))
    desk.write("two.yaml", images(5).replace("thing", "object"))
    with sandbox(*FAST) as box:
        both = [desk.start("run", name, env=box.env) for name in ("one.yaml", "two.yaml")]
        for process in both:
            process.communicate(timeout=60)
            assert process.returncode == 0
        assert box.stats["tokens_issued"] == 1
        assert box.stats["accepted"] == 10


# refusals


@pytest.mark.slow
def test_moderation_is_a_result_and_others_continue(desk):
    desk.write("job.yaml", images(4).replace("thing 2", "违规 thing"))
    with sandbox(*FAST) as box:
        desk.env = box.env
        summary = desk.job()
        assert summary["exit_code"] == 3
        assert summary["counts"] == {"done": 3, "failed": 1}
        assert desk.job()["submitted"] == 0
        slip = desk.run("retry", "job.yaml", "--failed", "--reason", "moderaton")
        assert slip.returncode == 2
        assert "'moderaton'" in slip.stderr
        assert "What is lost is so for: moderation." in slip.stderr
        assert "--reason" not in desk.run("retry", "job.yaml", "--failed", "--reason", "moderation").stderr
    (failed,) = [line for line in desk.results() if line["state"] == "failed"]
    assert failed["error"]["reason"] == "moderation"


@pytest.mark.slow
def test_changing_refused_prompt_lets_job_succeed(desk):
    desk.write("job.yaml", images(4).replace("thing 2", "违规 thing"))
    with sandbox(*FAST) as box:
        desk.env = box.env
        refused = desk.run("run", "job.yaml")
        assert refused.returncode == 3
        assert "        0003-违规_thing" in refused.stdout.splitlines()
        desk.write("job.yaml", images(4))
        mended = desk.run("run", "job.yaml")
    assert (mended.returncode, "next" in mended.stdout) == (0, False)
    assert "  1 that failed left the manifest: nothing is to be done about them" in mended.stdout.splitlines()
    assert "1 failed: moderation" not in mended.stdout
    assert desk.run("status", "job.yaml").stdout.splitlines()[0] == "job: 4 done · 1 failed"


@pytest.mark.slow
def test_failed_task_is_bought_again_only_on_request(desk):
    desk.write("job.yaml", images(3, provider="kling", model="image/kling-v2-1").replace("thing 1", "FAIL-TEST"))
    with sandbox(*FAST) as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"done": 2, "failed": 1}
        assert desk.run("retry", "job.yaml").returncode == 3
        assert box.stats["accepted"] == 3
        assert desk.run("retry", "job.yaml", "--failed", "--reason", "moderation").returncode == 2, "nothing is lost so"
        assert box.stats["accepted"] == 3
        assert desk.run("retry", "job.yaml", "--failed").returncode == 3
        references = [task["external_id"] for task in box.accepted if "FAIL" in task["request"]["prompt"]]
        assert [reference[-3:] for reference in references] == ["-g1", "-g2"]


@pytest.mark.slow
def test_rate_limit_slows_down_and_costs_nothing(desk):
    desk.write("job.yaml", images(24, qps=40))
    with sandbox(*FAST, "--qps", "8") as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"done": 24}
        assert box.stats["accepted"] == 24
        assert box.stats["refused"]["40001"] > 0


@pytest.mark.slow
def test_full_window_waits_for_own_tasks(desk):
    desk.write("job.yaml", images(8, provider="kling", model="image/kling-v2-1"))
    with sandbox(*FAST, "--concurrency", "2") as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"done": 8}
        assert box.stats["accepted"] == 8


@pytest.mark.slow
def test_window_of_manifest_is_never_exceeded(desk):
    manifest = images(8, provider="kling", model="image/kling-v2-1").replace("qps: 50", "qps: 50, in_flight: 2")
    desk.write("job.yaml", manifest)
    with sandbox(*FAST, "--concurrency", "2") as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"done": 8}
        assert "1303" not in box.stats["refused"]


# doubt

LOST = ("lost_reply", "reset_after", "cut_reply", "http_500_after")
NOT_ACCEPTED = ("reset_before", "http_504_before", "http_502_html", "html_200")


@pytest.mark.slow
@pytest.mark.parametrize("fault", LOST)
@pytest.mark.parametrize(("provider", "model"), [CHANJING, KLING])
def test_lost_response_is_found_and_never_paid_twice(desk, provider, model, fault):
    desk.write("job.yaml", images(6, provider=provider, model=model))
    with sandbox(*FAST, "--fault", f"{fault}=@2,4") as box:
        desk.env = box.env
        summary = desk.job()
        assert summary["counts"] == {"done": 6}
        assert summary["adopted"] == 2
        assert box.stats["accepted"] == 6
        assert box.stats["duplicates"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("fault", NOT_ACCEPTED)
@pytest.mark.parametrize(("provider", "model"), [CHANJING, KLING])
def test_unaccepted_task_is_bought_after_quiet_time(desk, provider, model, fault):
    desk.write("job.yaml", images(5, provider=provider, model=model))
    with sandbox(*FAST, "--fault", f"{fault}=@3") as box:
        desk.env = box.env
        summary = desk.job()
        assert summary["counts"] == {"done": 5}
        assert box.stats["accepted"] == 5
        assert summary["seconds"] >= 1.0, "an absence was believed before the quiet time"


@pytest.mark.slow
def test_list_is_learned_while_other_tasks_run(desk):
    """The quiet time ends long before the first response shows that the list returns requests unchanged."""
    desk.write("job.yaml", images(5, more="retry: {doubt: 0.3s}"))
    with sandbox("--seconds", "3,3.2", "--fault", "reset_before=@3") as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"done": 5}
        assert box.stats["accepted"] == 5


@pytest.mark.slow
@pytest.mark.parametrize(("provider", "model"), [CHANJING, KLING])
def test_task_that_shows_late_is_waited_for(desk, provider, model):
    desk.write("job.yaml", images(5, provider=provider, model=model, more="retry: {doubt: 3s}"))
    with sandbox(*FAST, "--fault", "lost_reply=@2", "--list-lag-s", "1.5") as box:
        desk.env = box.env
        assert desk.job()["adopted"] == 1
        assert box.stats["accepted"] == 5


@pytest.mark.slow
def test_duplicates_in_doubt_are_settled_by_number(desk):
    manifest = images(1, more="repeat: 6\nretry: {doubt: 2s}")
    desk.write("job.yaml", manifest)
    with sandbox(*FAST, "--fault", "lost_reply=@2,3", "--fault", "reset_before=@5") as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"done": 6}
        assert box.stats["accepted"] == 6


@pytest.mark.slow
def test_ambiguous_task_is_held_for_user(desk):
    desk.write("job.yaml", images(5, provider="kling-gateway", model="image/kling-v1-5"))
    with sandbox(*FAST, "--fault", "lost_reply=@2", "--fault", "reset_before=@4") as box:
        desk.env = box.env
        summary = desk.job()
        assert summary["exit_code"] == 4
        assert summary["counts"] == {"held": 2, "done": 3}
        assert len(summary["in_doubt"]) == 2
        assert desk.job()["submitted"] == 0

        known = {line["request"]["prompt"]: line["key"] for line in desk.results() if line["state"] == "held"}
        lost = {task["request"]["prompt"]: task["id"] for task in box.accepted}
        (paid,) = set(known) & set(lost)
        (unpaid,) = set(known) - set(lost)
        resolved = desk.run("resolve", "job.yaml", known[paid][:8], "--adopt", lost[paid])
        assert resolved.returncode == 0, resolved.stderr
        assert desk.run("resolve", "job.yaml", known[unpaid][:8], "--absent").returncode == 0
        assert desk.run("resolve", "job.yaml", known[unpaid][:8], "--absent").returncode == 2
        assert desk.job()["counts"] == {"done": 5}
        assert box.stats["accepted"] == 5


@pytest.mark.slow
def test_id_of_another_task_cannot_be_adopted(desk):
    desk.write("job.yaml", images(3, provider="kling-gateway", model="image/kling-v1-5"))
    with sandbox(*FAST, "--fault", "lost_reply=@2") as box:
        desk.env = box.env
        desk.job()
    held, done = ([line for line in desk.results() if line["state"] == state] for state in ("held", "done"))
    resolved = desk.run("resolve", "job.yaml", held[0]["key"], "--adopt", done[0]["remote_id"])
    assert resolved.returncode == 13
    assert "another task" in resolved.stderr
    assert desk.run("resolve", "job.yaml", held[0]["key"], "--abandon").returncode == 0


@pytest.mark.slow
def test_id_of_another_job_cannot_be_adopted(desk):
    """Reconciliation of another job cannot take an adopted task either: the account records its owner."""
    desk.write("one.yaml", images(1))
    desk.write("two.yaml", images(1))
    with sandbox(*FAST, "--fault", "reset_before=@2") as box:
        desk.env = box.env
        assert desk.job("one.yaml")["exit_code"] == 0
        assert desk.job("two.yaml", "--buy-again")["counts"] == {"in_doubt": 1}
        (line,) = desk.results("out/two")
        resolved = desk.run("resolve", "two.yaml", line["key"], "--adopt", box.accepted[0]["id"])
        assert resolved.returncode == 13
        assert "another job" in resolved.stderr
        other = "11111111-aaaa"
        assert desk.run("resolve", "two.yaml", line["key"], "--adopt", other).returncode == 0
        (shared,) = desk.root.glob("home/accounts/*/claims.db")
        with closing(sqlite3.connect(shared)) as claims:
            assert claims.execute("select count(*) from claim where remote_id = ?", (other,)).fetchone() == (1,)


@pytest.mark.slow
def test_burst_of_doubt_stops_submits(desk):
    desk.write("job.yaml", images(30, provider="kling-gateway", model="image/kling-v1-5", qps=20))
    with sandbox(*FAST, "--fault", "lost_reply=1.0") as box:
        summary = desk.job(env=box.env)
        assert summary["exit_code"] == 4
        assert box.stats["accepted"] <= 2 + 3


# downloads


@pytest.mark.slow
def test_download_faults_end_in_complete_files(desk):
    desk.write("job.yaml", images(8))
    faults = ("cut_download=@1,4", "html_download=@2", "expired_link=@6", "reset_download=@7", "empty_download=@8")
    with sandbox(*FAST, *(word for fault in faults for word in ("--fault", fault))) as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"done": 8}
        assert box.stats["accepted"] == 8
        assert box.stats["downloads_with_credentials"] == 0
    complete_files(desk)
    assert not list((desk.root / "out/job/.runner/parts").glob("*"))


@pytest.mark.slow
def test_foreign_file_is_never_overwritten(desk):
    desk.write("job.yaml", images(1))
    target = desk.root / "out/job/0001-thing_0.png"
    target.parent.mkdir(parents=True)
    target.write_text("mine")
    with sandbox(*FAST) as box:
        assert desk.job(env=box.env)["counts"] == {"done": 1}
    assert target.read_text() == "mine"
    complete_files(desk)


# locks, signals, kills


@pytest.mark.slow
def test_second_run_of_same_job_is_refused_at_once(desk):
    desk.write("job.yaml", images(6, qps=3))
    with sandbox(*FAST) as box:
        first = desk.start("run", "job.yaml", env=box.env)
        until(lambda: box.stats["accepted"] >= 1)
        first.send_signal(signal.SIGSTOP)  # however slow this machine is, it is still at work
        second = desk.run("run", "job.yaml", env=box.env)
        first.send_signal(signal.SIGCONT)
        assert second.returncode == 11
        assert "Traceback" not in second.stderr
        first.communicate(timeout=60)
        assert first.returncode == 0
        assert box.stats["accepted"] == 6


@pytest.mark.slow
def test_run_can_wait_for_lock(desk):
    desk.write("job.yaml", images(4, qps=4))
    with sandbox(*FAST) as box:
        first = desk.start("run", "job.yaml", env=box.env)
        until(lambda: box.stats["accepted"] >= 1)
        second = desk.run("run", "job.yaml", "--wait-lock", "60s", env=box.env)
        first.communicate(timeout=60)
        assert second.returncode == 0
        assert box.stats["accepted"] == 4


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signal_drains_and_next_run_continues(desk, number, code):
    desk.write("job.yaml", images(20, qps=10))
    with sandbox(*FAST) as box:
        process = desk.start("run", "job.yaml", "--json", env=box.env)
        until(lambda: box.stats["accepted"] >= 3)
        process.send_signal(number)
        out, err = process.communicate(timeout=35)
        assert process.returncode == code, err
        summary = json.loads(out.splitlines()[-1])
        assert summary["in_doubt"] == []
        assert "Traceback" not in err
        assert desk.job(env=box.env)["counts"] == {"done": 20}
        assert box.stats["accepted"] == 20


@pytest.mark.slow
def test_drain_waits_for_slow_response(desk):
    desk.write("job.yaml", images(3, provider="kling-gateway", model="image/kling-v1-5"))
    with sandbox(*FAST, "--fault", "slow_reply=@2", "--slow-s", "3") as box:
        process = desk.start("run", "job.yaml", "--json", env=box.env)
        until(lambda: box.stats["accepted"] >= 2)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=35)
        assert process.returncode == 143
        assert json.loads(out.splitlines()[-1])["in_doubt"] == []


@pytest.mark.slow
@pytest.mark.parametrize(("provider", "model"), [CHANJING, KLING])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_repeated_kill_9_pays_every_task_once(desk, provider, model, seed):
    """After repeated kill -9 every task is paid once and its file is complete, on an account that has bought before."""
    chance = random.Random(seed)
    faults = ("lost_reply=0.05", "reset_before=0.03", "cut_download=0.1")
    words = [word for fault in faults for word in ("--fault", fault)]
    desk.write("job.yaml", images(24, provider=provider, model=model, qps=30))
    with sandbox(*FAST, "--seed", str(seed), *words) as box:
        earlier = buy_before(desk, box, provider, model)
        for _ in range(3):
            process = desk.start("run", "job.yaml", env=box.env)
            time.sleep(chance.uniform(0.5, 1.6))  # the moment of the kill is the test's random input
            process.kill()
            process.communicate()
        summary = desk.job(env=box.env)
        assert summary["counts"] == {"done": 24}, summary
        ledger = {task["id"] for task in box.accepted[earlier:]}
        assert box.stats["duplicates"] == 0
        assert {line["remote_id"] for line in desk.results()} == ledger
        assert len(ledger) == 24
        assert desk.job(env=box.env)["submitted"] == 0
    complete_files(desk)


@pytest.mark.slow
def test_kill_9_of_run_with_own_sandbox_loses_nothing(desk):
    desk.write("job.yaml", images(10, qps=8))
    process = desk.start("run", "job.yaml", "--sandbox")
    ledger = desk.root / "out/job-sandbox/.runner/sandbox.jsonl"
    until(lambda: ledger.exists() and len(ledger.read_text().splitlines()) >= 3)
    process.kill()
    process.communicate()
    assert desk.job("job.yaml", "--sandbox")["counts"] == {"done": 10}
    assert len(ledger.read_text().splitlines()) == 10


# outages, places, state


@pytest.mark.slow
def test_unreachable_provider_is_exit_5_and_spends_nothing(desk):
    """A provider that cannot be reached is exit 5, and nothing is spent."""
    desk.write("job.yaml", images(4))
    env = {"CHANJING_BASE_URL": "http://127.0.0.1:9", "CHANJING_ACCESS_TOKEN": "x"}
    summary = desk.job("job.yaml", "--deadline", "5s", env=env)
    assert summary["exit_code"] == 5
    assert summary["counts"] == {"queued": 4}


@pytest.mark.slow
def test_run_waits_out_an_outage(desk):
    desk.write("job.yaml", images(30, provider="kling", model="image/kling-v2-1", qps=10))
    with sandbox(*FAST) as box:
        process = desk.start("run", "job.yaml", "--json", env=box.env)
        until(lambda: box.stats["accepted"] >= 5)
        box.change(outage=True)
        until(lambda: box.requests("outage") >= 8)
        box.change(outage=False)
        out, err = process.communicate(timeout=80)
        assert process.returncode == 0, err
        assert json.loads(out.splitlines()[-1])["counts"] == {"done": 30}
        assert box.stats["accepted"] == 30
        assert box.stats["duplicates"] == 0


@pytest.mark.slow
def test_deadline_stops_submits_and_finishes_paid_tasks(desk):
    desk.write("job.yaml", images(30, qps=5))
    with sandbox(*FAST) as box:
        summary = desk.job("job.yaml", "--deadline", "1s", env=box.env)
        assert summary["exit_code"] == 5
        assert summary["counts"]["done"] == box.stats["accepted"]
        assert summary["counts"]["queued"] == 30 - box.stats["accepted"]


@pytest.mark.slow
def test_tasks_of_one_host_are_not_polled_at_another(desk):
    desk.write("job.yaml", images(2))
    with sandbox(*FAST) as box:
        desk.job(env=box.env)
    desk.write("job.yaml", images(3))
    elsewhere = {"CHANJING_BASE_URL": "https://chanjing.example", "CHANJING_ACCESS_TOKEN": "x"}
    done = desk.run("run", "job.yaml", env=elsewhere)
    assert done.returncode == 13
    assert "--out" in done.stderr


@pytest.mark.slow
def test_newer_database_is_left_alone(desk):
    desk.write("job.yaml", images(1))
    with sandbox(*FAST) as box:
        desk.job(env=box.env)
    database = desk.root / "out/job/.runner/state.db"
    with sqlite3.connect(database) as connection:
        connection.execute("pragma user_version = 99")
    connection.close()
    done = desk.run("run", "job.yaml", "--sandbox", "--out", "out/job")
    assert done.returncode == 13
    assert "newer version" in done.stderr


@pytest.mark.slow
def test_state_is_private(desk):
    desk.write("job.yaml", images(1))
    with sandbox(*FAST) as box:
        desk.job(env=box.env)
    hidden = desk.root / "out/job/.runner"
    assert hidden.stat().st_mode & 0o777 == 0o700
    assert (hidden / "state.db").stat().st_mode & 0o777 == 0o600
    tokens = list((desk.root / "home").rglob("token.json"))
    assert tokens
    assert all(token.stat().st_mode & 0o777 == 0o600 for token in tokens)


@pytest.mark.slow
def test_written_files_hold_no_secret(desk):
    canary = "canary-7f3a91"
    desk.write("job.yaml", images(3))
    with sandbox(*FAST, "--fault", "lost_reply=@2") as box:
        env = {**box.env, "CHANJING_SECRET_KEY": canary, "CHANJING_APP_ID": "app"}
        done = desk.run("run", "job.yaml", "--log-format", "json", env=env)
    assert done.returncode == 0
    assert canary not in done.stdout + done.stderr
    files = [path for path in desk.root.rglob("*") if path.is_file()]
    assert not [path for path in files if canary.encode() in path.read_bytes()]


@pytest.mark.slow
def test_unreachable_host_ends_run(desk):
    desk.write("job.yaml", images(4))
    env = {"CHANJING_BASE_URL": "http://127.0.0.1:9", "CHANJING_APP_ID": "a", "CHANJING_SECRET_KEY": "b"}
    summary = desk.job(env=env)
    assert summary["exit_code"] == 5
    assert any("cannot be reached" in reason for reason in summary["reasons"])
    assert summary["counts"] == {"queued": 4}


@pytest.mark.slow
def test_wrong_adopted_id_is_returned_to_user(desk):
    desk.write("job.yaml", images(1, provider="kling-gateway", model="image/kling-v1-5"))
    with sandbox(*FAST, "--fault", "lost_reply=@1") as box:
        desk.env = box.env
        assert desk.job()["exit_code"] == 4
        (line,) = desk.results()
        assert desk.run("resolve", "job.yaml", line["key"], "--adopt", "not-an-id").returncode == 0
        summary = desk.job()
        assert (summary["exit_code"], summary["counts"]) == (4, {"held": 1})
        assert desk.run("resolve", "job.yaml", line["key"], "--adopt", box.accepted[0]["id"]).returncode == 0
        assert desk.job()["counts"] == {"done": 1}


@pytest.mark.slow
def test_single_task_is_waited_for(desk):
    desk.write("job.yaml", images(1))
    for number in range(3):
        assert desk.job("job.yaml", "--sandbox", "--out", f"out/{number}")["counts"] == {"done": 1}


def test_sandbox_sends_no_request_outside(desk):
    spec = (desk.root / "specs").resolve()
    spec.mkdir()
    text = (Path(__file__).parents[2] / "runner/providers/specs/kling-gateway.yaml").read_text(encoding="utf-8")
    (spec / "other.yaml").write_text(
        text.replace("name: kling-gateway", "name: other").replace("env: KLING_GATEWAY", "env: OTHER")
    )
    desk.write("job.yaml", images(1, provider="other", model="image/kling-v1-5"))
    with sandbox() as box:
        env = {"OTHER_BASE_URL": box.url, "OTHER_API_KEY": "real", "RUNNER_PROVIDERS": str(spec)}
        done = desk.run("run", "job.yaml", "--sandbox", env=env)
        assert done.returncode == 2, done.stderr
        assert "does not serve other" in done.stderr
        assert box.requests() == 0


@pytest.mark.slow
def test_suggested_command_does_not_pay(desk):
    desk.write("job.yaml", images(10, qps=5))
    summary = desk.job("job.yaml", "--sandbox", "--deadline", "0.5s")
    assert summary["next"] == "runner run job.yaml --sandbox"


@pytest.mark.slow
def test_jobs_with_same_prompts_keep_their_own_tasks(desk):
    """Two jobs with the same prompts never take each other's tasks."""
    desk.write("one.yaml", images(6, more="retry: {doubt: 2s}"))
    desk.write("two.yaml", images(6, more="retry: {doubt: 2s}"))
    with sandbox(*FAST, "--fault", "lost_reply=0.25", "--list-lag-s", "0.3", "--seed", "5") as box:
        both = [desk.start("run", name, "--json", "--buy-again", env=box.env) for name in ("one.yaml", "two.yaml")]
        ends = [json.loads(process.communicate(timeout=60)[0].splitlines()[-1]) for process in both]
        assert [end["counts"] for end in ends] == [{"done": 6}, {"done": 6}]
        owned = [line["remote_id"] for name in ("one", "two") for line in desk.results(f"out/{name}")]
        assert len(set(owned)) == 12
        assert set(owned) == {task["id"] for task in box.accepted}


@pytest.mark.slow
def test_requests_the_list_cannot_distinguish_are_held(desk):
    """Requests that differ only in fields that the list hides are held rather than swapped."""
    rows = "\n".join(f"  - {{image: 'https://files.example/{number}.png'}}" for number in range(4))
    desk.write(
        "job.yaml",
        "version: 1\nprovider: chanjing\nmodel: kling-v2\nparams: {prompt: same}\n"
        f"items:\n{rows}\nlimits: {{qps: 20}}\nretry: {{doubt: 1s}}\n",
    )
    with sandbox(*FAST, "--fault", "lost_reply=@2,3") as box:
        summary = desk.job(env=box.env)
        assert summary["exit_code"] == 4
        assert summary["counts"] == {"held": 2, "done": 2}
        shown = {task["id"]: task["request"]["ref_img_url"] for task in box.accepted}
        for line in desk.results():
            if line["state"] == "done":
                assert shown[line["remote_id"]] == line["request"]["ref_img_url"]


@pytest.mark.slow
def test_in_flight_work_is_not_sought_in_another_account(desk):
    desk.write("job.yaml", images(4, provider="kling", model="image/kling-v2-1"))
    with sandbox("--seconds", "20,30") as box:
        process = desk.start("run", "job.yaml", env=box.env)
        until(lambda: box.stats["accepted"] >= 4)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=35)
        other = {**box.env, "KLING_API_KEY": "another-account"}
        refused = desk.run("run", "job.yaml", env=other)
        assert refused.returncode == 13
        assert "--same-account" in refused.stderr
        assert box.stats["accepted"] == 4
