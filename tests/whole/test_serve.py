"""The live page over HTTP: authorization, served files and pushed events."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import sys
from contextlib import contextmanager
from urllib.parse import quote, urlsplit

import pytest

from runner.app import live_jobs
from runner.errors import ConfigError

from .conftest import Desk, images, sandbox


@contextmanager
def served(desk: Desk, *words: object):
    """Serve a live page for the duration of a block, and check that it stops cleanly."""
    process = desk.start("serve", *words, "--port", "0", "--json")
    try:
        yield Page(json.loads(process.stdout.readline())["url"])
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")


class Page:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.url, self.host, self.base = url, parts.netloc, parts.path

    def ask(self, path: str = "", *, method: str = "GET", whole: bool = False, **headers: str):
        """Return status, headers and body. `whole` is a path from the root."""
        connection = http.client.HTTPConnection(self.host, timeout=10)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path if whole else self.base + path, headers=sent)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    @contextmanager
    def events(self):
        """Yield the pushed events."""
        connection = http.client.HTTPConnection(self.host, timeout=20)
        connection.request("GET", f"{self.base}events")
        try:
            yield (json.loads(line[6:]) for line in connection.getresponse() if line.startswith(b"data: "))
        finally:
            connection.close()


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Serve a page for one finished job."""
    desk = Desk(tmp_path_factory.mktemp("served"))
    desk.write("job.yaml", images(2))
    with sandbox("--seconds", "0.05,0.1") as box:
        desk.job(env=box.env)
    out = desk.root / "out/job"
    (out / "link.png").symlink_to(desk.root / "home")
    (out / "deep").mkdir()
    (out / "deep/a.png").write_bytes(b"x")
    (out / "page.html").write_text("mine")
    with served(desk, "out") as page, page.events() as events:
        (job,) = next(event["jobs"] for event in events if event["jobs"])
        page.job, page.files = job, [line["outputs"][0]["file"] for line in desk.results()]
        yield page


@pytest.mark.slow
def test_page_is_self_contained_and_has_a_policy(done):
    """The page loads nothing from elsewhere and declares what it may do."""
    status, headers, body = done.ask()
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    wanted = ("x-content-type-options", "referrer-policy", "cross-origin-resource-policy", "x-frame-options")
    assert [headers[name] for name in wanted] == ["nosniff", "no-referrer", "same-origin", "DENY"]
    assert b"default-src 'none'" in body
    assert b"unsafe" not in body
    assert b"http://" not in body.replace(b"'", b"")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "thief.example"}, 403),
        ({"Host": "thief.example:{port}"}, 403),
        ({"Host": "127.0.0.1"}, 403),
        ({"Host": "localhost:{port}"}, 200),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
        ({"Sec_Fetch_Site": "none"}, 200),
        ({"Origin": "https://thief.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_only_user_and_own_page_may_send_requests(done, headers, status):
    port = done.host.rpartition(":")[2]
    sent = {name: value.format(port=port) for name, value in headers.items()}
    for path in ("", "events" if status == 403 else "", f"jobs/{done.job['id']}/{quote(done.files[0])}"):
        assert done.ask(path, **sent)[0] == status


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/", "/x/", "/x/events", "//", "/jobs/x/index.html", "/openapi.json", "/docs"])
def test_requests_without_key_are_refused(done, path):
    assert done.ask(path, whole=True)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_server_is_read_only(done, method):
    assert done.ask(method=method)[0] == 405


@pytest.mark.parametrize(
    "path",
    [
        ".runner/state.db", ".runner/journal.jsonl", "results.jsonl", "../job/results.jsonl", "..%2f..%2fjob.yaml",
        "link.png", "deep/a.png", "page.html", "gallery/READ-ME.txt", "gallery/../.runner/facts.json",
        "%2e%2e/job.yaml", "a%00.png", "", "/etc/passwd", "gallery", ".png", "gone.png",
    ],
)  # fmt: skip
def test_only_files_of_gallery_are_served(done, path):
    assert done.ask(f"jobs/{done.job['id']}/{path}")[0] == 404


def test_outputs_and_gallery_are_served_with_ranges(done):
    """Outputs and the gallery are served, and videos support seeking."""
    where = f"jobs/{done.job['id']}/"
    status, headers, body = done.ask(where + quote(done.files[0]))
    assert (status, headers["content-type"], body[:4]) == (200, "image/png", b"\x89PNG")
    status, headers, body = done.ask(where + quote(done.files[0]), Range="bytes=1-3")
    assert (status, body) == (206, b"PNG")
    assert done.ask(where + "index.html")[2].startswith(b"<!doctype html>\n<!-- made by runner")
    assert done.ask("jobs/unknown/index.html")[0] == 404


def test_job_state_is_served(done):
    job = done.job
    assert (job["job"], job["counts"], job["total"], job["running"]) == ("job", {"done": 2}, 2, False)
    assert sorted(file["file"] for file in job["files"]) == done.files
    assert job["page"] is True
    (provider,) = job["providers"]
    assert (provider["name"], provider["limit"]) == ("chanjing", 50)


@pytest.mark.slow
def test_changes_are_pushed_during_a_run(desk):
    desk.write("job.yaml", images(6, qps=5).replace("thing 2", "违规 thing"))
    with (
        sandbox("--seconds", "0.2,0.4", "--fault", "poll_500=0.2") as box,
        served(desk) as page,
        page.events() as events,
    ):
        assert next(events)["jobs"] == []
        run = desk.start("run", "job.yaml", "--quiet", env=box.env)
        seen = []
        for event in events:
            seen += event["jobs"]
            if seen and not seen[-1]["running"] and seen[-1]["page"]:
                break
        run.communicate(timeout=30)
    assert seen[-1]["counts"] == {"done": 5, "failed": 1}
    assert len(seen) > 3
    assert any(job["running"] and job["counts"].get("running") for job in seen)
    assert [(fault["reason"], fault["count"]) for fault in seen[-1]["faults"]] == [("moderation", 1)]
    assert {job["providers"][0]["limit"] for job in seen if job["running"] and job["providers"]} >= {5}
    assert len(seen[-1]["files"]) == 5
    assert {job["pretend"] for job in seen} == {False}


@pytest.mark.slow
def test_sandbox_job_is_distinguished_from_paid_job(desk):
    """A sandbox job is distinguished from a paid one."""
    desk.write("job.yaml", images(1))
    assert desk.run("run", "job.yaml", "--sandbox", "--quiet").returncode == 0
    with served(desk) as page, page.events() as events:
        (job,) = next(event["jobs"] for event in events if event["jobs"])
    assert (job["pretend"], job["counts"]) == (True, {"done": 1})


@pytest.mark.slow
def test_removed_job_disappears_and_broken_job_is_marked(desk):
    for name in ("one", "two"):
        (desk.root / name / ".runner").mkdir(parents=True)
        (desk.root / name / ".runner/state.db").write_bytes(b"no database" * 100)
    with served(desk) as page, page.events() as events:
        first = next(event for event in events if event["jobs"])
        assert {job["job"]: "trouble" in job for job in first["jobs"]} == {"one": True, "two": True}
        shutil.rmtree(desk.root / "one")
        left = next(event for event in events if len(event["known"]) == 1)
    assert left["known"] == [job["id"] for job in first["jobs"] if job["job"] == "two"]


def test_only_latest_jobs_are_shown(desk, monkeypatch):
    monkeypatch.setattr(live_jobs, "_MAX_JOBS", 1)
    for at, name in enumerate(("old", "new")):
        (desk.root / name / ".runner").mkdir(parents=True)
        (desk.root / name / ".runner/state.db").touch()
        os.utime(desk.root / name / ".runner/state.db", (at, at))
    jobs, fresh, more = live_jobs.LiveJobs(desk.root)._scan(0.0)
    assert ([job.directory.name for job in jobs.values()], len(fresh), more) == (["new"], 1, 1)


@pytest.mark.slow
def test_port_in_use_is_reported_with_hint(desk):
    with served(desk) as page:
        again = desk.run("serve", "--port", page.host.rpartition(":")[2])
    assert (again.returncode, again.stdout) == (7, "")
    assert "Choose another with --port" in again.stderr


def test_missing_libraries_are_reported_with_hint(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "runner.net.web", None)
    with pytest.raises(ConfigError, match=r'pip install "genrunner\[web\]"'):
        live_jobs.serve(tmp_path, 0, "key", print)
