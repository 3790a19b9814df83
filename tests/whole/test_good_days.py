"""Usual commands in runs without failures."""

from __future__ import annotations

import json
import signal
from hashlib import sha256
from pathlib import Path

import pytest

from .conftest import images, sandbox, until

JOBS = Path(__file__).parents[2] / "jobs"
FAST = ("--seconds", "0.1,0.4")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("provider", "model"),
    [("chanjing", "kling-v2-1"), ("kling", "image/kling-v2-1"), ("kling-gateway", "image/kling-v1-5")],
)
def test_every_image_is_paid_once_and_downloaded(desk, provider, model):
    desk.write("job.yaml", images(6, provider=provider, model=model))
    with sandbox(*FAST) as box:
        desk.env = box.env
        summary = desk.job()
        assert summary["counts"] == {"done": 6}
        assert summary["submitted"] == summary["downloaded"] == box.stats["accepted"] == 6
        assert box.stats["duplicates"] == 0
    for line in desk.results():
        (output,) = line["outputs"]
        data = (desk.root / "out/job" / output["file"]).read_bytes()
        assert len(data) == output["bytes"]
        assert sha256(data).hexdigest() == output["sha256"]
        assert output["media_type"] == "image/png"


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["A", "B", "C"])
def test_every_gateway_dialect_works(desk, dialect):
    desk.write("job.yaml", images(3, provider="kling-gateway", model="image/kling-v1-5"))
    with sandbox(*FAST, "--gateway-dialect", dialect) as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"done": 3}
        assert {"model", "model_name"} <= set(box.accepted[0]["request"])


@pytest.mark.slow
def test_kling_gets_reference_and_makes_several_images(desk):
    manifest = images(2, provider="kling", model="image/kling-v2-1").replace('"1:1"', '"1:1", n: 3')
    desk.write("job.yaml", manifest)
    with sandbox(*FAST) as box:
        desk.env = box.env
        assert desk.job()["downloaded"] == 6
        assert all(task["external_id"].endswith("-g1") for task in box.accepted)
    files = [output["file"] for line in desk.results() for output in line["outputs"]]
    assert len(set(files)) == 6


@pytest.mark.slow
def test_jwt_is_signed_with_key_pair(desk):
    desk.write("job.yaml", images(2, provider="kling", model="image/kling-v2-1"))
    with sandbox(*FAST) as box:
        pair = {"KLING_ACCESS_KEY": "sandbox-ak", "KLING_SECRET_KEY": "sandbox-sk"}
        desk.env = {"KLING_BASE_URL": box.url, **pair}
        assert desk.job()["counts"] == {"done": 2}


@pytest.mark.slow
def test_second_run_submits_nothing(desk):
    desk.write("job.yaml", images(4))
    with sandbox(*FAST) as box:
        desk.env = box.env
        desk.job()
        before = box.requests()
        again = desk.job()
        assert again["submitted"] == again["downloaded"] == 0
        assert again["counts"] == {"done": 4}
        assert box.requests() == before


@pytest.mark.slow
def test_only_added_rows_are_bought(desk):
    desk.write("job.yaml", images(3))
    with sandbox(*FAST) as box:
        desk.env = box.env
        desk.job()
        desk.write("job.yaml", images(5))
        assert desk.job()["submitted"] == 2
        desk.write("job.yaml", images(4))
        assert desk.job()["submitted"] == 0
        assert box.stats["accepted"] == 5


@pytest.mark.slow
def test_removed_rows_are_never_bought(desk):
    desk.write("job.yaml", images(6, qps=2))
    with sandbox(*FAST) as box:
        desk.env = box.env
        early = desk.job("job.yaml", "--deadline", "0.7s")
        assert early["exit_code"] == 5
        bought = early["submitted"]
        assert 0 < bought < 6
        desk.write("job.yaml", images(bought, qps=2))
        assert desk.job()["submitted"] == 0
        status = json.loads(desk.run("status", "job.yaml", "--json").stdout)
        assert status["gone"] == 6 - bought


@pytest.mark.slow
def test_repeats_are_bought_as_often_as_requested(desk):
    desk.write("job.yaml", images(2).replace("retry:", "repeat: 3\nretry:"))
    with sandbox(*FAST) as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"done": 6}
        assert box.stats["accepted"] == 6


@pytest.mark.slow
def test_two_providers_have_separate_limits(desk):
    desk.write(
        "job.yaml",
        """\
version: 1
params: {prompt: "{{ subject }}", aspect_ratio: "1:1"}
items:
  - {subject: a, provider: chanjing, model: kling-v2-1}
  - {subject: a, provider: kling, model: image/kling-v2-1}
limits: {qps: 20}
""",
    )
    with sandbox(*FAST) as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"done": 2}
        assert box.stats["accepted_by_provider"] == {"chanjing": 1, "kling": 1}
    assert {line["provider"] for line in desk.results()} == {"chanjing", "kling"}


@pytest.mark.slow
@pytest.mark.parametrize("manifest", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_job_runs_in_sandbox(desk, manifest):
    summary = desk.job(str(manifest), "--sandbox", "--out", str(desk.root / "out"))
    assert set(summary["counts"]) == {"done"}
    assert summary["submitted"] == summary["counts"]["done"]


@pytest.mark.slow
def test_example_jobs_make_forty_images_and_few_videos(desk):
    plans = [json.loads(desk.run("plan", str(path), "--json").stdout) for path in sorted(JOBS.glob("*.yaml"))]
    videos = sum(plan["tasks"] for plan in plans if plan["job"] in {"clips", "kling-videos"})
    assert sum(plan["tasks"] for plan in plans) - videos >= 40
    assert videos >= 3
    samples = "".join(json.dumps(plan["samples"], ensure_ascii=False) for plan in plans)
    assert any("\u4e00" <= char <= "\u9fff" for char in samples)


@pytest.mark.slow
def test_sandbox_outputs_never_count_as_bought(desk):
    desk.write("job.yaml", images(2))
    assert desk.job("job.yaml", "--sandbox")["submitted"] == 2
    assert (desk.root / "out/job-sandbox/results.jsonl").is_file()
    plan = json.loads(desk.run("plan", "job.yaml", "--json").stdout)
    assert plan["new"] == 2


@pytest.mark.slow
def test_validate_plan_and_status_send_nothing(desk):
    desk.write("job.yaml", images(3))
    with sandbox() as box:
        desk.env = box.env
        assert desk.run("validate", "job.yaml").returncode == 0
        assert "3 tasks" in desk.run("plan", "job.yaml").stdout
        assert desk.run("status", "job.yaml").returncode == 10
        assert box.requests() == 0
    assert not (desk.root / "out").exists()


@pytest.mark.slow
def test_quiet_prints_nothing_but_writes_summary_file(desk):
    """With --quiet a success prints nothing, and the summary file holds everything."""
    desk.write("job.yaml", images(2))
    with sandbox(*FAST) as box:
        done = desk.run("run", "job.yaml", "--quiet", "--summary-file", "s.json", env=box.env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    summary = json.loads((desk.root / "s.json").read_text())
    assert summary["counts"] == {"done": 2}
    assert {
        "job",
        "exit_code",
        "submitted",
        "adopted",
        "downloaded",
        "bytes",
        "cost",
        "in_doubt",
        "seconds",
        "next",
    } <= set(summary)


@pytest.mark.slow
def test_results_have_every_promised_key_in_manifest_order(desk):
    desk.write("job.yaml", images(3))
    with sandbox(*FAST) as box:
        desk.job(env=box.env)
    lines = desk.results()
    assert [line["index"] for line in lines] == [1, 2, 3]
    assert [line["vars"]["subject"] for line in lines] == ["thing 0", "thing 1", "thing 2"]
    promised = {
        "key", "index", "repeat", "vars", "provider", "model", "request", "state", "remote_id", "outputs", "error",
        "attempts", "cost", "bought_in", "evidence", "queued_at", "submitted_at", "finished_at",
    }  # fmt: skip
    assert all(set(line) == promised for line in lines)
    assert lines[0]["request"] == {"ref_prompt": "thing 0", "aspect_ratio": "1:1"}


@pytest.mark.slow
def test_json_logs_are_one_object_per_line(desk):
    desk.write("job.yaml", images(2))
    with sandbox(*FAST) as box:
        done = desk.run("run", "job.yaml", "--log-format", "json", env=box.env)
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["event"] for event in events].count("accepted") == 2


@pytest.mark.slow
def test_signal_that_was_ignored_at_the_start_stays_so(desk):
    """As `nohup` asks for: closing the terminal ends no run."""
    desk.write("job.yaml", images(3))
    with sandbox("--seconds", "3,3.5") as box:
        desk.env = box.env
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            process = desk.start("run", "job.yaml", "--json")
        finally:
            signal.signal(signal.SIGHUP, before)
        until(lambda: box.stats["accepted"] == 3)
        process.send_signal(signal.SIGHUP)
        out, _ = process.communicate(timeout=40)
        assert (process.returncode, json.loads(out)["counts"]) == (0, {"done": 3})
