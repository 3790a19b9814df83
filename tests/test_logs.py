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


def test_one_event_is_one_line_whatever_a_provider_says(capsys):
    logs.set_up("json", quiet=False)
    hear = logs.listener()
    hear(task(State.SUBMITTING), Refused(Fault("provider", "1", "no\n2026 ERROR \x1b[2J forged")), task(State.FAILED))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    event = json.loads(lines[0])
    assert (event["event"], event["level"], event["code"]) == ("refused", "warning", "1")
    assert "\x1b" not in event["message"]


def test_money_is_logged_with_its_reference(capsys):
    logs.set_up("json", quiet=False)
    hear = logs.listener()
    hear(task(State.SUBMITTING), Accepted("remote-1"), task(State.RUNNING))
    event = json.loads(capsys.readouterr().err)
    assert (event["ref"], event["remote_id"]) == ("rX-g1", "remote-1")


def test_without_a_format_only_what_matters_is_said(capsys):
    logs.set_up(None, quiet=False)
    hear = logs.listener()
    hear(task(State.SUBMITTING), Accepted("remote-1"), task(State.RUNNING))
    assert capsys.readouterr().err == ""
    hear(task(State.SUBMITTING), Interrupted("ReadError"), task(State.IN_DOUBT))
    assert "interrupted" in capsys.readouterr().err


def test_an_id_that_could_not_be_written_down_is_told_on_stderr(capsys):
    logs.emergency(task(State.SUBMITTING), Accepted("remote-1"))
    assert "EMERGENCY id{" in (told := capsys.readouterr().err)
    assert "remote-1" in told


def test_a_refusal_is_a_result_and_said_line_by_line_only_to_those_who_ask(capsys):
    for form, lines in ((None, 0), ("console", 1), ("json", 1)):
        logs.set_up(form, quiet=False)
        logs.listener()(task(State.SUBMITTING), Refused(Fault("moderation", "1", "no")), task(State.FAILED))
        assert capsys.readouterr().err.count("\n") == lines


def test_lines_go_to_stderr_as_it_is_at_that_moment(monkeypatch):
    logs.set_up("console", quiet=False)
    hear = logs.listener()
    view = io.StringIO()
    monkeypatch.setattr(sys, "stderr", view)
    hear(task(State.SUBMITTING), Accepted("remote-1"), task(State.RUNNING))
    assert "remote_id=remote-1" in view.getvalue()


def test_a_bug_is_logged_with_its_place(capsys):
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
    made = LogFile(tmp_path / "run.log")
    yield made
    made.close()
    logs.set_up(None, quiet=False)


def test_a_file_gets_everything_as_json_whatever_the_terminal_gets(tmp_path, file, capsys):
    logs.set_up(None, quiet=True, file=file)
    logs.listener()(task(State.SUBMITTING), Accepted("remote-1"), task(State.RUNNING))
    logs.note("by the way")
    assert capsys.readouterr().err == ""
    first, second = map(json.loads, (tmp_path / "run.log").read_text().splitlines())
    assert (first["event"], first["ref"], first["remote_id"]) == ("accepted", "rX-g1", "remote-1")
    assert {"timestamp", "monotonic"} <= set(first)
    assert second["event"] == "by the way"
    assert stat.S_IMODE((tmp_path / "run.log").stat().st_mode) == 0o600


def test_a_full_disk_under_the_file_does_not_silence_stderr(file, capsys, monkeypatch):
    def full(_line: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file, "write", full)
    logs.set_up("console", quiet=False, file=file)
    logs.warn("something that matters")
    assert "something that matters" in capsys.readouterr().err
