import io
import json
import stat
import sys

import pytest

from runner import logs
from runner.lifecycle.events import Accepted, Interrupted, Refused
from runner.lifecycle.task import Fault, State, Task
from runner.log_file import LogFile


def task(state: State) -> Task:
    return Task(1, "a" * 32, "chanjing", "image", "m", state, None, ref="rX-g1")


def test_event_is_one_line_whatever_a_provider_sends(capsys):
    logs.set_up("json", quiet=False)
    on_event = logs.listener()
    on_event(
        task(State.SUBMITTING), Refused(Fault("provider", "1", "no\n2026 ERROR \x1b[2J forged")), task(State.FAILED)
    )
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    event = json.loads(lines[0])
    assert (event["event"], event["level"], event["code"]) == ("refused", "warning", "1")
    assert "\x1b" not in event["message"]


def test_accepted_task_is_logged_with_its_reference(capsys):
    logs.set_up("json", quiet=False)
    on_event = logs.listener()
    on_event(task(State.SUBMITTING), Accepted("remote-1"), task(State.RUNNING))
    event = json.loads(capsys.readouterr().err)
    assert (event["ref"], event["remote_id"]) == ("rX-g1", "remote-1")


def test_only_warnings_are_shown_without_a_format(capsys):
    logs.set_up(None, quiet=False)
    on_event = logs.listener()
    on_event(task(State.SUBMITTING), Accepted("remote-1"), task(State.RUNNING))
    assert capsys.readouterr().err == ""
    on_event(task(State.SUBMITTING), Interrupted("ReadError"), task(State.IN_DOUBT))
    assert "interrupted" in capsys.readouterr().err


def test_unstored_id_is_printed_to_stderr(capsys):
    logs.emergency(task(State.SUBMITTING), Accepted("remote-1"))
    assert "EMERGENCY id{" in (text := capsys.readouterr().err)
    assert "remote-1" in text


def test_rejections_are_shown_only_with_a_format(capsys):
    """A rejection is a result like any other, counted by the live view and the summary."""
    for log_format, lines in ((None, 0), ("console", 1), ("json", 1)):
        logs.set_up(log_format, quiet=False)
        logs.listener()(task(State.SUBMITTING), Refused(Fault("moderation", "1", "no")), task(State.FAILED))
        assert capsys.readouterr().err.count("\n") == lines


def test_lines_go_to_the_current_stderr(monkeypatch):
    logs.set_up("console", quiet=False)
    on_event = logs.listener()
    view = io.StringIO()
    monkeypatch.setattr(sys, "stderr", view)
    on_event(task(State.SUBMITTING), Accepted("remote-1"), task(State.RUNNING))
    assert "remote_id=remote-1" in view.getvalue()


def test_bug_is_logged_with_its_traceback(capsys):
    logs.set_up("json", quiet=False)
    try:
        json.loads("{")
    except ValueError as error:
        logs.bug(error)
    event = json.loads(capsys.readouterr().err)
    assert event["at"][0].startswith("test_logs.py:")
    assert "JSONDecodeError" in event["error"]


# the log file


@pytest.fixture
def file(tmp_path):
    log_file = LogFile(tmp_path / "run.log")
    yield log_file
    log_file.close()
    logs.set_up(None, quiet=False)


def test_file_gets_everything_as_json(tmp_path, file, capsys):
    logs.set_up(None, quiet=True, file=file)
    logs.listener()(task(State.SUBMITTING), Accepted("remote-1"), task(State.RUNNING))
    logs.note("by the way")
    assert capsys.readouterr().err == ""
    first, second = map(json.loads, (tmp_path / "run.log").read_text().splitlines())
    assert (first["event"], first["ref"], first["remote_id"]) == ("accepted", "rX-g1", "remote-1")
    assert {"timestamp", "monotonic"} <= set(first)
    assert second["event"] == "by the way"
    assert stat.S_IMODE((tmp_path / "run.log").stat().st_mode) == 0o600


def test_full_disk_does_not_silence_stderr(file, capsys, monkeypatch):
    def full(_line: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file, "write", full)
    logs.set_up("console", quiet=False, file=file)
    logs.warn("something that matters")
    assert "something that matters" in capsys.readouterr().err
