"""Unattended runs: notifications, metrics and logs, none of which changes how a run ends."""

from __future__ import annotations

import json
import re
import signal
import stat
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.whole.conftest import images, sandbox, until

FAST = ("--seconds", "0,0.1")
NOTIFY = 'notify: {url: "${HEALTHCHECK_URL}"}'
SECRET = "5ec4e7-uuid"


@dataclass
class Received:
    """The notifications that a monitor received."""

    url: str = ""
    pings: list[tuple[str, str, str]] = field(default_factory=list)
    rids: set[str] = field(default_factory=set)

    @property
    def words(self) -> list[str]:
        return [word for _, word, _ in self.pings]


@contextmanager
def monitor(status: int = 200):
    """Run a monitor on loopback that answers with this status."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._receive()

        def do_POST(self):
            self._receive()

        def _receive(self):
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            received.pings.append((self.command, parts.path.rpartition("/")[2], body))
            received.rids |= set(parse_qs(parts.query)["rid"])
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received.url = f"http://127.0.0.1:{server.server_port}/{SECRET}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def job(count: int = 2, more: str = NOTIFY, **options) -> str:
    return images(count, more=f"retry: {{doubt: 1s}}\n{more}", **options)


@pytest.mark.slow
def test_monitor_gets_start_and_end_as_counts_only(desk):
    """A monitor is notified of the start and the end of a run, with counts alone."""
    desk.write("job.yaml", job().replace("thing 1", "违规 canary-prompt"))
    with sandbox(*FAST) as box, monitor() as received:
        env = box.env | {"HEALTHCHECK_URL": received.url}
        done = desk.run("run", "job.yaml", "--log-file", "run.log", env=env)
    assert done.returncode == 3
    assert [(method, word) for method, word, _ in received.pings] == [("GET", "start"), ("POST", "3")]
    body = received.pings[1][2]
    assert "1 done, 1 failed" in body
    assert "canary" not in body
    assert "违规" not in body
    assert len(body.encode()) <= 1000
    (rid,) = received.rids
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", rid)
    written = [path for path in desk.root.rglob("*") if path.is_file() and "home" not in path.parts]
    assert (desk.root / "run.log") in written
    for path in written:
        assert SECRET.encode() not in path.read_bytes(), path
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("on", "words"), [("[success, failure]", ["0"]), ("[failure]", []), ("[start]", ["start"])])
def test_only_requested_events_are_notified(desk, on, words):
    desk.write("job.yaml", job(1, f'notify: {{url: "${{HEALTHCHECK_URL}}", on: {on}}}'))
    with sandbox(*FAST) as box, monitor() as received:
        done = desk.run("run", "job.yaml", "--quiet", env=box.env | {"HEALTHCHECK_URL": received.url})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert received.words == words


@pytest.mark.slow
def test_drained_run_is_notified_as_failure_with_exit_code(desk):
    """A drained run is notified as a failure with its exit code."""
    desk.write("job.yaml", job(40, qps=5))
    with sandbox(*FAST) as box, monitor() as received:
        process = desk.start("run", "job.yaml", "--quiet", env=box.env | {"HEALTHCHECK_URL": received.url})
        until(lambda: box.stats["accepted"] > 0)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=40)
    assert process.returncode == 143
    assert received.words == ["start", "143"]


def test_run_that_cannot_start_is_notified_as_failure(desk):
    desk.write("job.yaml", job())
    with monitor() as received:
        done = desk.run("run", "job.yaml", env={"HEALTHCHECK_URL": received.url})
    assert done.returncode == 7
    assert received.words == ["start", "7"]
    assert received.pings[1][2].endswith("nothing was done")


@pytest.mark.slow
def test_overlapping_run_leaves_metrics_alone(desk):
    """An overlapping run is notified with its own run id and leaves the metrics alone."""
    desk.write("job.yaml", job(40, qps=5))
    with sandbox(*FAST) as box, monitor() as received:
        env = box.env | {"HEALTHCHECK_URL": received.url}
        first = desk.start("run", "job.yaml", "--metrics-file", "m.prom", env=env)
        until(lambda: box.stats["accepted"] > 0 and (desk.root / "m.prom").exists())
        during = (desk.root / "m.prom").read_text()
        second = desk.run("run", "job.yaml", "--metrics-file", "m.prom", env=env)
        assert (desk.root / "m.prom").read_text() == during
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=40)
    assert second.returncode == 11
    assert sorted(received.words) == ["11", "130", "start", "start"]
    assert len(received.rids) == 2
    assert 'runner_running{job="job"} 1' in during
    assert "runner_exit_code" not in during


@pytest.mark.slow
@pytest.mark.parametrize("status", [301, 404, None])
def test_failing_monitor_changes_nothing(desk, status, unused_port):
    desk.write("job.yaml", job(1, 'notify: {url: "${HEALTHCHECK_URL}", on: [success]}'))
    with sandbox(*FAST) as box, monitor(status or 200) as received:
        url = received.url if status else f"http://127.0.0.1:{unused_port}/{SECRET}"
        done = desk.run("run", "job.yaml", env=box.env | {"HEALTHCHECK_URL": url})
    assert done.returncode == 0
    assert "the monitor was not told of the success" in done.stderr
    assert SECRET not in done.stderr


@pytest.fixture
def unused_port():
    import socket  # noqa: PLC0415

    with socket.socket() as held:  # bound and not listening: no other process can take it, and connecting is refused
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "word"),
    [
        ({}, "HEALTHCHECK_URL is not set"),
        ({"HEALTHCHECK_URL": f"http://hc.example/{SECRET}"}, "plain text"),
        ({"HEALTHCHECK_URL": f"nonsense://{SECRET}"}, "Apprise"),
    ],
)
def test_invalid_notify_url_is_reported_before_any_request(desk, env, word):
    desk.write("job.yaml", job())
    with sandbox(*FAST) as box:
        done = desk.run("run", "job.yaml", env=box.env | env)
        assert box.requests() == 0
    assert done.returncode == 7
    assert word in done.stderr
    assert SECRET not in done.stderr
    assert not (desk.root / "out").exists()


@pytest.mark.slow
def test_notify_url_can_come_from_private_file(desk):
    desk.write("job.yaml", job(1))
    with sandbox(*FAST) as box, monitor() as received:
        desk.write("url", received.url).chmod(0o600)
        done = desk.run("run", "job.yaml", env=box.env | {"HEALTHCHECK_URL_FILE": str(desk.root / "url")})
    assert (done.returncode, received.words) == (0, ["start", "0"])


@pytest.mark.slow
def test_sandbox_run_sends_no_notification(desk):
    desk.write("job.yaml", job(1))
    with monitor() as received:
        done = desk.run("run", "job.yaml", "--sandbox", env={"HEALTHCHECK_URL": received.url})
    assert (done.returncode, received.words) == (0, [])
    assert desk.run("validate", "job.yaml").returncode == 0


# metrics and logs


@pytest.mark.slow
def test_metrics_show_outcome_of_latest_run(desk):
    desk.write("job.yaml", job(3, "cost: 4").replace("thing 1", "违规 thing"))
    with sandbox(*FAST) as box:
        done = desk.run("run", "job.yaml", "--quiet", "--metrics-file", "m.prom", env=box.env)
    assert done.returncode == 3
    lines = (desk.root / "m.prom").read_text().splitlines()
    assert {
        'runner_tasks{job="job",state="done"} 2',
        'runner_tasks{job="job",state="failed"} 1',
        'runner_exit_code{job="job"} 3',
        'runner_running{job="job"} 0',
        'runner_unsettled_tasks{job="job"} 0',
        'runner_cost{job="job"} 8',
        'runner_oldest_ready_seconds{job="job"} 0',
        'runner_run_submitted_tasks{job="job"} 2',
        'runner_run_downloaded_files{job="job"} 2',
    } <= set(lines)
    assert stat.S_IMODE((desk.root / "m.prom").stat().st_mode) == 0o644


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--metrics-file", "--log-file", "--summary-file"])
def test_unwritable_file_is_reported_before_any_request(desk, option):
    """A file that cannot be written is reported before any request."""
    desk.write("job.yaml", job(1, ""))
    with sandbox(*FAST) as box:
        for name in ("nowhere/file", "."):
            done = desk.run("run", "job.yaml", option, name, env=box.env)
            assert done.returncode == 2
            assert option in done.stderr
        assert box.requests() == 0


def test_metrics_of_two_jobs_do_not_share_a_file(desk):
    for name in ("one.yaml", "two.yaml"):
        desk.write(name, job(1, ""))
    done = desk.run("run", "one.yaml", "two.yaml", "--sandbox", "--metrics-file", "m.prom")
    assert (done.returncode, "one job's" in done.stderr) == (2, True)


@pytest.mark.slow
def test_log_file_can_be_moved_during_a_run(desk):
    desk.write("job.yaml", job(12, "", qps=6))
    log = desk.root / "run.log"
    with sandbox(*FAST) as box:
        process = desk.start("run", "job.yaml", "--quiet", "--log-file", "run.log", env=box.env)
        until(lambda: log.exists() and log.stat().st_size > 0)
        log.rename(desk.root / "run.log.1")
        process.communicate(timeout=40)
    assert process.returncode == 0
    lines = [
        json.loads(line) for name in ("run.log.1", "run.log") for line in (desk.root / name).read_text().splitlines()
    ]
    assert [line["event"] for line in lines].count("saved") == 12
    assert all(stat.S_IMODE((desk.root / name).stat().st_mode) == 0o600 for name in ("run.log.1", "run.log"))


# without a terminal


@pytest.mark.slow
def test_plain_progress_on_stderr_and_summary_on_stdout(desk):
    """Plain lines go to stderr and end with a summary on stdout."""
    desk.write("job.yaml", job(3, "cost: 4\nlimits: {qps: 20, max_cost: 50}").replace("limits: {qps: 50}\n", ""))
    with sandbox(*FAST) as box:
        done = desk.run("run", "job.yaml", env=box.env)
    lines = done.stderr.splitlines()
    assert lines[0].startswith("job: 0/3 done · 3 to submit · eta unknown · cost 0 of 50 beans")
    assert "\x1b" not in done.stderr
    assert done.stdout.splitlines()[1].startswith("  this run  3 submitted, 3 files (")


@pytest.mark.slow
def test_locale_without_prompt_characters_ends_no_run(desk):
    desk.write("job.yaml", job(2, "").replace("thing 1", "违规 thing"))
    with sandbox(*FAST) as box:
        done = desk.run("run", "job.yaml", env=box.env | {"PYTHONIOENCODING": "iso8859-5"})
    assert done.returncode == 3
    assert "1 failed: moderation" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_held_task_is_reported_with_resolving_command(desk):
    desk.write("job.yaml", job(3, "", provider="kling-gateway", model="image/kling-v1-5"))
    with sandbox(*FAST, "--fault", "lost_reply=@2") as box:
        desk.env = box.env
        done = desk.run("run", "job.yaml")
        assert done.returncode == 4
        (command,) = re.findall(r"^ +(runner resolve job\.yaml [0-9a-f]{8} --adopt ID)$", done.stdout, re.MULTILINE)
        words = command.split()[1:-2]
        assert desk.run(*words, "--abandon").returncode == 0
