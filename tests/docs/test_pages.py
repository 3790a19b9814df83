"""The pages for users: every command runs, every unit is valid, every table matches the program."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys

import pytest

from runner.app.notify import notification
from runner.report import metrics
from runner.report.live import LiveView
from runner.report.metrics import JobMetrics
from runner.report.run_info import RunInfo
from runner.report.stats import RunStats
from runner.scheduler.outcome import Exit
from runner.tasks.models import State

PAGES = ("docs/bulk.md", "docs/resume.md", "docs/nightly.md", "docs/gallery.md")
#: output that a page shows for its commands
SHOWN_OUTPUT = {
    "docs/bulk.md": ("  this run  2 submitted", "leaves no room for the next task"),
    "docs/gallery.md": ("index.html: 12 tasks; 12 new thumbnails",),
    "docs/resume.md": ("  this run  0 submitted",),
}
_EXIT = re.compile(r"exit (\d+)")


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_every_command_runs_with_stated_exit_code(name, desk, document):
    """Commands run in order in the sandbox. A comment beside a command may name another exit code than 0."""
    page = document(name)
    desk.lay_out(page)
    lines = [line for block in page.of("sh") if block.runs for line in block.text.splitlines() if line.strip()]
    assert len(lines) >= 2
    printed = ""
    for line in lines:
        command, _, comment = line.partition(" #")
        verb, *words = shlex.split(command)
        assert verb == "runner"
        assert "--sandbox" in words or words[0] in {"validate", "plan"}
        stated = _EXIT.search(comment)
        done = desk.runner(*words)
        assert done.returncode == int(stated[1] if stated else 0), f"{command}\n{done.stdout}\n{done.stderr}"
        printed += done.stdout
    assert [words for words in SHOWN_OUTPUT.get(name, ()) if words not in printed] == []


@pytest.mark.parametrize("name", [*PAGES, "docs/operations.md"])
def test_named_options_exist(name, desk, document):
    text = document(name).text
    for block in document(name).of("ini"):
        text = text.replace(block.text, "")
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {
        "--adopt",
        "--absent",
        "--abandon",
        "--now",
        "--priority",
    }
    known = "".join(
        desk.runner(verb, "--help").stdout for verb in ("run", "retry", "plan", "export", "probe", "resolve", "doctor")
    )
    assert [option for option in sorted(named) if f"{option} " not in known and f"{option}\n" not in known] == []


def test_shown_view_matches_program(document):
    shown = next(block.text for block in document("docs/bulk.md").of("text") if "━" in block.text)
    states = {State.QUEUED: 1, State.SUBMITTING: 1, State.RUNNING: 5, State.DONE: 5}
    tally = RunStats()
    tally.start(states, 0.0, by_provider={"chanjing": states})
    drawn = LiveView(RunInfo("scenes", limits={"chanjing": 5.0}), tally).lines(1.0, 100, 40)
    assert len(drawn) == len(shown.splitlines())
    for ours, theirs in list(zip(drawn, shown.splitlines(), strict=True))[1:]:
        assert _bar(ours.plain) == _bar(theirs)


def _bar(line: str) -> tuple[str, str, str]:
    label, bar, count = re.fullmatch(r"  (.{12})([━─]+) +(\d+).*", line).groups()
    return label, bar, count


def test_shown_notification_matches_program(document):
    shown = next(block.text for block in document("docs/nightly.md").of("text"))
    summary = {
        "counts": {"done": 38, "failed": 2},
        "submitted": 12,
        "adopted": 0,
        "downloaded": 12,
        "bytes": 5_100_000,
        "cost": 48.0,
        "seconds": 200.0,
    }
    message = notification("nightly", 3, summary)
    assert f"{message.title}\n{message.body}\n" == shown


# operations


@pytest.fixture
def page(document):
    return document("docs/operations.md")


def test_exit_codes_match_program(page):
    codes = [int(code) for row in page.table("code") for code in row[0].split(",")]
    assert codes == sorted(Exit)


def test_service_restarts_only_on_recoverable_exit_codes(page):
    """The systemd service restarts only after exit codes that another run can heal."""
    unit = page.noted("file: runner-nightly.service").text
    prevented = {int(code) for code in re.search(r"^RestartPreventExitStatus=(.*)$", unit, re.MULTILINE)[1].split()}
    success = {int(code) for code in re.search(r"^SuccessExitStatus=(.*)$", unit, re.MULTILINE)[1].split()}
    assert set(Exit) - prevented - success - {Exit.DONE, Exit.HUP} == {Exit.RESUMABLE}
    listed = {row[0]: row[3] for row in page.table("code")}
    assert {int(code) for code, way in listed.items() if way == "starts again"} == {Exit.RESUMABLE}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_accepts_units(page, desk):
    desk.lay_out(page)
    names = ["runner-nightly.service", "runner-nightly.timer", "runner-alert@.service"]
    for name in names:
        path = desk.path / name
        path.write_text(path.read_text().replace("/usr/local/bin/runner", sys.executable))
    instance = desk.path / "runner-alert@x.service"
    instance.symlink_to("runner-alert@.service")
    done = subprocess.run(
        ["systemd-analyze", "verify", *(str(desk.path / name) for name in names[:2]), str(instance)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**desk.env, "SYSTEMD_UNIT_PATH": f"{desk.path}:"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_cron_line_runs_silently_in_empty_environment(page, desk, document):
    (line,) = page.noted("a line of cron").text.splitlines()
    desk.lay_out(document("docs/nightly.md"))
    minute, hour, *_, command = line.split(None, 5)
    assert (minute.isdecimal(), hour.isdecimal(), "%" in line) == (True, True, False)
    (desk.path / ".runner-env").write_text("export HEALTHCHECK_URL=https://hc.example/1\n")
    command = command.replace("/usr/local/bin/runner", f"{sys.executable} -m runner")
    command = f"{command.replace('/var/lib/runner', str(desk.path))} --sandbox"
    bare = {"HOME": str(desk.path), "PATH": "/usr/bin:/bin", "RUNNER_HOME": str(desk.path / "home")}
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd="/", env=bare, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (desk.path / "nightly.json").stat().st_mode & 0o077 == 0


def test_every_metric_is_documented(page):
    numbers = {"submitted": 1, "adopted": 1, "downloaded": 1, "cost": 1.0, "exit_code": 0}
    written = set(
        re.findall(r"# TYPE (\w+)", metrics.render(JobMetrics("j", 0.0, running=False, counts={}, **numbers)))
    )
    listed = {name for row in page.table("metric") for name in re.findall(r"`(\w+)`", row[0])}
    assert listed == written
    for row in page.table("alert"):
        assert set(re.findall(r"runner_\w+", row[0])) <= written
