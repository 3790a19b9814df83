import json

from runner import logs
from runner.lifecycle.events import Accepted, Interrupted, Refused
from runner.lifecycle.task import Fault, State, Task


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
