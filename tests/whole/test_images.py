"""Local images with real files and processes: each task gets the right one, uploaded once, or nothing is sent."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import sqlite3
from contextlib import closing

import pytest
from PIL import Image

from .conftest import sandbox, until

FAST = ("--seconds", "0.1,0.3", "--video-seconds", "0.1,0.3")
SIGN = "GET /open/v1/common/create_upload_url"


def png(colour=0, side=320):
    file = io.BytesIO()
    Image.new("L", (side, side), colour).save(file, "PNG")
    return file.getvalue()


def sha(data):
    return hashlib.sha256(data).hexdigest()


def paint(desk, **colours):
    (desk.root / "photos").mkdir(exist_ok=True)
    for name, colour in colours.items():
        (desk.root / f"photos/{name}.png").write_bytes(png(colour))


def manifest(*rows, provider="chanjing", model="tx_kling2.5", more=""):
    """Return a manifest with a video from an image for each row `(prompt, image)`."""
    duration = "5" if provider == "chanjing" else '"5"'
    items = "\n".join(f"  - {{prompt: {prompt}, image: {image}}}" for prompt, image in rows)
    head = f"version: 1\nprovider: {provider}\nmodel: {model}\nparams: {{duration: {duration}}}\nitems:\n{items}\n"
    return f"{head}limits: {{qps: 50}}\nretry: {{doubt: 1s}}\n{more}"


KLING = {"provider": "kling", "model": "image2video/kling-v2-6"}
GATEWAY = {"provider": "kling-gateway", "model": "image2video/kling-v2-6"}


def spent(desk):
    """Return what the account has spent today."""
    (database,) = (desk.root / "home/accounts").glob("*/jobs.db")
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("select sum(amount) from spent").fetchone()[0]


def image_hashes(box):
    """Return the hashes of the images that the provider got with each prompt."""
    prompts = [task["request"].get("ref_prompt") or task["request"].get("prompt") for task in box.accepted]
    return dict(zip(prompts, (task["pictures"] for task in box.accepted), strict=True))


@pytest.mark.slow
def test_twenty_tasks_with_one_image_upload_it_once(desk):
    paint(desk, boat=1)
    desk.write("job.yaml", manifest(*((f"video {number}", "photos/boat.png") for number in range(20))))
    with sandbox(*FAST) as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"done": 20}
        stats = box.stats
        assert (stats["requests"][SIGN], stats["uploads"], stats["uploads_with_credentials"]) == (1, 1, 0)
        assert image_hashes(box) == {f"video {number}": {"start_frame": sha(png(1))} for number in range(20)}
        assert desk.job()["submitted"] == 0
        assert box.stats["uploads"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("words", [{}, KLING, GATEWAY], ids=["chanjing", "kling", "gateway"])
def test_every_task_gets_its_own_image(desk, words):
    paint(desk, a=1, b=2, c=3)
    rows = [(f"video {number}", f"photos/{name}.png") for number, name in enumerate("abcabc")]
    desk.write("job.yaml", manifest(*rows, **words))
    field = "start_frame" if not words else "image"
    with sandbox(*FAST) as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"done": 6}
        wanted = {f"video {number}": {field: sha(png(1 + number % 3))} for number in range(6)}
        assert image_hashes(box) == wanted
        assert box.stats["uploads"] == (3 if not words else 0)
    state = (desk.root / "out/job/.runner/journal.jsonl").read_bytes()
    assert b"iVBOR" not in state, "no image is ever in the state"
    assert sha(png(1)).encode() in state


@pytest.mark.slow
def test_jobs_of_one_account_upload_an_image_once(desk):
    paint(desk, boat=1)
    for name in ("one", "two"):
        desk.write(f"{name}.yaml", manifest((f"video {name}", "photos/boat.png")))
    with sandbox(*FAST, "--upload-s", "1") as box:
        both = [desk.start("run", f"{name}.yaml", env=box.env) for name in ("one", "two")]
        for process in both:
            _, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
        assert (box.stats["uploads"], box.stats["accepted"]) == (1, 2)


@pytest.mark.slow
def test_kill_during_upload_costs_nothing(desk):
    paint(desk, boat=1)
    desk.write("job.yaml", manifest(("video", "photos/boat.png")))
    with sandbox(*FAST, "--upload-s", "5") as box:
        desk.env = box.env
        process = desk.start("run", "job.yaml")
        until(lambda: box.stats["uploads"] == 1)
        status = json.loads(desk.run("status", "job.yaml", "--json").stdout)
        assert status["counts"] == {"queued": 1}, "no submit is sent during an upload"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        box.change(upload_s=0)
        summary = desk.job()
        assert (summary["counts"], summary["in_doubt"]) == ({"done": 1}, [])
        assert image_hashes(box) == {"video": {"start_frame": sha(png(1))}}


@pytest.mark.slow
def test_run_stopped_during_upload_ends_at_once(desk):
    paint(desk, boat=1)
    desk.write("job.yaml", manifest(("video", "photos/boat.png")))
    with sandbox(*FAST, "--upload-s", "60") as box:
        desk.env = box.env
        process = desk.start("run", "job.yaml", "--json")
        until(lambda: box.stats["uploads"] == 1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, "Traceback" in err) == (130, False)
        assert json.loads(out.splitlines()[-1])["counts"] == {"queued": 1}
        assert box.stats["accepted"] == 0


@pytest.mark.slow
def test_reconcile_distinguishes_tasks_by_image(desk):
    """The list shows them with equal fields. Neither is adopted by guess: they are held and never swapped."""
    paint(desk, a=1, b=2)
    desk.write("job.yaml", manifest(("video", "photos/a.png"), ("video", "photos/b.png")))
    with sandbox(*FAST, "--fault", "lost_reply=@1,2") as box:
        desk.env = box.env
        summary = desk.job()
        assert summary["exit_code"] == 4
        assert box.stats["accepted"] <= 2
        assert summary["counts"].get("done", 0) + summary["counts"].get("held", 0) == 2
        done = [line for line in desk.results() if line["state"] == "done"]
        by_id = {task["id"]: task["pictures"]["start_frame"] for task in box.accepted}
        assert [line["request"]["start_frame"] for line in done] == [
            f"sha256:{by_id[each['remote_id']]}" for each in done
        ]


@pytest.mark.slow
def test_file_changed_before_submit_is_not_sent(desk):
    """The first submit of a run goes alone, which leaves time to change the second task's file."""
    paint(desk, a=1, b=2)
    rows = (("video a", "photos/a.png"), ("video b", "photos/b.png"), ("video c", "photos/b.png"))
    desk.write("job.yaml", manifest(*rows, **KLING, more="cost: 4"))
    with sandbox(*FAST, "--fault", "slow_reply=@1", "--slow-s", "2") as box:
        desk.env = {**box.env, "KLING_DAILY_COST": "12"}
        process = desk.start("run", "job.yaml", "--json")
        until(lambda: box.stats["accepted"] == 1)
        paint(desk, b=9)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, json.loads(out.splitlines()[-1])["counts"]) == (3, {"done": 1, "failed": 2}), err
        assert image_hashes(box) == {"video a": {"image": sha(png(1))}}
        error = desk.results()[1]["error"]
        assert (error["reason"], "photos/b.png has changed" in error["message"]) == ("image", True)
        assert spent(desk) == 4.0, "what was not sent is not counted among the day's costs"
        paint(desk, b=2)
        assert desk.run("retry", "job.yaml", "--failed", "--reason", "image", "--yes").returncode == 0
        assert image_hashes(box)["video c"] == {"image": sha(png(2))}


@pytest.mark.slow
def test_file_changed_before_upload_is_not_sent(desk):
    """Four are uploaded at once, which leaves time to change the fifth."""
    paint(desk, a=1, b=2, c=3, d=4, e=5)
    desk.write("job.yaml", manifest(*((f"video {name}", f"photos/{name}.png") for name in "abcde")))
    with sandbox(*FAST, "--upload-s", "2") as box:
        desk.env = box.env
        process = desk.start("run", "job.yaml", "--json")
        until(lambda: box.stats["uploads"] == 4)
        (desk.root / "photos/e.png").unlink()
        out, err = process.communicate(timeout=60)
        assert (process.returncode, json.loads(out.splitlines()[-1])["counts"]) == (3, {"done": 4, "failed": 1}), err
        assert (sorted(image_hashes(box)), box.stats["uploads"]) == (["video a", "video b", "video c", "video d"], 4)


@pytest.mark.slow
def test_changed_image_is_a_new_task_in_plan(desk):
    paint(desk, boat=1)
    desk.write("job.yaml", manifest(("video", "photos/boat.png")))
    with sandbox(*FAST) as box:
        desk.env = box.env
        desk.job()
        (desk.root / "photos/boat.png").rename(desk.root / "photos/ship.png")
        desk.write("job.yaml", manifest(("video", "photos/ship.png")))
        assert json.loads(desk.run("plan", "job.yaml", "--json").stdout)["new"] == 0
        assert desk.job()["submitted"] == 0, "another name buys nothing"
        paint(desk, ship=2)
        plan = json.loads(desk.run("plan", "job.yaml", "--json").stdout)
        (change,) = plan["changed"]
        assert (plan["new"], list(change["fields"])) == (1, ["start_frame"])
        assert desk.job()["submitted"] == 1
        assert [task["pictures"]["start_frame"] for task in box.accepted] == [sha(png(1)), sha(png(2))]


@pytest.mark.slow
def test_renamed_image_is_found_at_submit(desk):
    """The row of a task that was planned under another path follows its file."""
    paint(desk, boat=1)
    desk.write("job.yaml", manifest(("video", "photos/boat.png"), **KLING))
    with sandbox(*FAST, "--credit", "0") as box:
        desk.env = box.env
        assert desk.job()["exit_code"] == 6
        (desk.root / "photos/boat.png").rename(desk.root / "photos/ship.png")
        desk.write("job.yaml", manifest(("video", "photos/ship.png"), **KLING))
        box.change(credit=10)
        assert desk.job()["counts"] == {"done": 1}
        assert image_hashes(box) == {"video": {"image": sha(png(1))}}


@pytest.mark.slow
def test_refused_image_fails_the_task_and_costs_nothing(desk):
    """An image that the provider refuses is a failed task and costs nothing."""
    paint(desk, good=1)
    (desk.root / "photos/bad.png").write_bytes(png(2) + b"NSFW-TEST")
    desk.write("job.yaml", manifest(("video a", "photos/bad.png"), ("video b", "photos/good.png")))
    with sandbox(*FAST) as box:
        desk.env = box.env
        summary = desk.job()
        assert (summary["exit_code"], summary["counts"]) == (3, {"done": 1, "failed": 1})
        assert list(image_hashes(box)) == ["video b"]
    (failed,) = [line for line in desk.results() if line["state"] == "failed"]
    assert failed["error"]["reason"] == "moderation"


@pytest.mark.slow
def test_wrong_credentials_upload_nothing(desk):
    paint(desk, boat=1)
    desk.write("job.yaml", manifest(*((f"video {number}", "photos/boat.png") for number in range(20))))
    with sandbox() as box:
        wrong = {name: value if name.endswith("URL") else "wrong" for name, value in box.env.items()}
        assert desk.job(env=wrong)["exit_code"] == 12
        assert box.stats["uploads"] == 0
        assert box.requests() <= 3


def test_all_image_diagnostics_are_reported_at_once(desk):
    """All diagnostics of images are reported at once, and nothing is sent."""
    paint(desk, good=1)
    (desk.root / "photos/small.png").write_bytes(png(1, side=100))
    (desk.root / "photos/note.png").write_text("no image")
    (desk.root / "photos/link.png").symlink_to("/etc/hostname")
    rows = ["photos/good.png", "photos/small.png", "photos/note.png", "photos/none.png", "../elsewhere.png",
            "/etc/passwd", "photos/link.png", "photos", "file:///etc/passwd"]  # fmt: skip
    desk.write("job.yaml", manifest(*((f"video {number}", image) for number, image in enumerate(rows)), **KLING))
    with sandbox() as box:
        done = desk.run("run", "job.yaml", env=box.env)
        assert box.requests() == 0
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    diagnostics = [line.partition("job.yaml:")[2] for line in done.stderr.splitlines() if "job.yaml:" in line]
    assert [int(line.split(":")[0]) for line in diagnostics] == list(range(7, 15))
    assert "100 × 100 pixels" in diagnostics[0]
    assert all("outside of the manifest's directory" in diagnostics[at] for at in (3, 4, 5))


def test_paths_in_data_file_are_relative_to_manifest(desk):
    paint(desk, boat=1)
    (desk.root / "rows").mkdir()
    desk.write("rows/videos.csv", "prompt,image\nvideo,photos/boat.png\nother,photos/none.png\n")
    text = manifest(("x", "y"), **KLING).split("items:")[0] + "items: {file: rows/videos.csv}\n"
    desk.write("job.yaml", text)
    done = desk.run("validate", "job.yaml")
    assert done.returncode == 2
    assert "rows/videos.csv:3" in done.stderr
    assert "boat" not in done.stderr


@pytest.mark.slow
def test_only_owner_can_allow_another_directory(desk):
    paint(desk, boat=1)
    (desk.root / "jobs").mkdir()
    desk.write("jobs/job.yaml", manifest(("video", "../photos/boat.png")))
    assert "RUNNER_IMAGES" in desk.run("validate", "jobs/job.yaml").stderr
    assert desk.run("validate", "jobs/job.yaml", env={"RUNNER_IMAGES": str(desk.root / "photos")}).returncode == 0
