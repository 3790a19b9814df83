"""Decisions about many tasks at once: all, by reason, from a file, and what `audit` found for one that is queued."""

from __future__ import annotations

import pytest

import runner
from runner.app import resolve
from runner.app.decision_file import read_decisions
from runner.cli.main import _run as command
from runner.errors import UsageError
from runner.tasks.events import Resolved
from runner.tasks.models import State, Task
from tests.odd_gateway import Gateway, job

MANIFEST = """\
version: 1
name: job
provider: kling-gateway
model: image/kling-v2-1
params: {prompt: "{{ subject }}"}
items: [{subject: cup}, {subject: fox}, {subject: owl}, {subject: hen}]
output: {dir: out}
limits: {qps: 50}
"""
BUSY = 429, {"error": {"message": "busy", "type": "new_api_error"}}, ("Retry-After", "1")
NAMED = 500, {"code": 5000, "data": {"task_id": "t-77"}}


@pytest.fixture
def held(tmp_path, monkeypatch):
    """Run a job whose first answer is "busy" and whose second names a task although it is an error."""
    answers = {1: BUSY, 2: NAMED}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(MANIFEST)
    with Gateway(answers.get).serving() as gateway:
        for name, value in job(gateway, tmp_path).loaded.settings.environ.items():
            monkeypatch.setenv(name, value)
        result = runner.run(runner.load("job.yaml"))
        assert (result.exit_code, result.counts) == (4, {"held": 2, "done": 2})
        yield gateway, result


@pytest.fixture
def call(capsys):
    """Return a function that calls `runner resolve job.yaml` and returns the exit code and what it said."""

    def call(*words):
        code = command(["resolve", "job.yaml", *words])
        return code, "".join(capsys.readouterr())

    return call


def keys(result, state="held"):
    return [task.key for task in result.tasks(state=state)]


@pytest.mark.slow
def test_all_are_absent_but_those_that_an_answer_names(held, call):
    """A task with an id was made, whatever else its answer said: called absent it would be paid twice."""
    gateway, result = held
    assert "--all --absent" not in result.describe()  # one of the two may be called absent
    code, said = call("--all", "--absent")
    assert (code, "1 task now queued: the next run buys it" in said) == (0, True)
    assert "1 task left out, since an answer said that it was made" in said
    again = runner.run(runner.load("job.yaml"))
    assert again.counts == {"done": 3, "held": 1}
    assert gateway.posts == 5
    (named,) = keys(again)
    assert call(named, "--absent")[0] == 0
    assert runner.run(runner.load("job.yaml")).counts == {"done": 4}


@pytest.mark.slow
def test_all_that_can_be_absent_are_named_with_their_number(tmp_path):
    answers = {1: BUSY, 2: NAMED, 3: BUSY}
    with Gateway(answers.get).serving() as gateway:
        result = runner.run(job(gateway, tmp_path, 4))
    said = result.describe()
    assert "the 2 of which no answer says that they were made, at once:" in said
    assert "--all --absent" in said


@pytest.mark.slow
def test_reason_chooses_and_names_what_there_is(held, call):
    code, said = call("--all", "--abandon", "--reason", "BUSY")
    assert (code, "1 task now failed" in said) == (0, True)
    code, said = call("--all", "--abandon", "--reason", "no such")
    assert code != 0
    assert "t-77" in said or "no task waits for the reason" in said


@pytest.mark.slow
def test_id_that_an_answer_named_is_in_the_command(held, call):
    _, result = held
    named = next(key for key, line in zip(keys(result), result.tasks(state="held"), strict=True) if "t-77" in str(line))
    assert f"runner resolve job.yaml {named[:8]} --adopt t-77" in result.describe()
    assert call(named[:8], "--adopt", "t-77")[0] == 0
    assert runner.run(runner.load("job.yaml")).counts == {"done": 3, "held": 1}


@pytest.mark.slow
def test_file_of_keys_and_ids_adopts_each(held, call, tmp_path):
    gateway, result = held
    one, two = keys(result)
    (tmp_path / "ids.txt").write_text(f"# from the console\n{one[:8]}\tu 1/2\n\n{two}, u-2\n")
    assert call("--from", "ids.txt")[0] == 0
    assert runner.run(runner.load("job.yaml")).counts == {"done": 4}
    assert gateway.posts == 4
    assert {task.remote_id for task in runner.open_job("out").tasks()} >= {"u 1/2", "u-2"}


@pytest.mark.slow
def test_one_wrong_line_leaves_everything_as_it_was(held, call, tmp_path):
    _, result = held
    one, two = keys(result)
    for text in (f"{one} u-1\n{two} u-1\n", f"{one} u-1\nffff0000 u-2\n", f"{one} u-1\n{one[:8]} u-2\n"):
        (tmp_path / "ids.txt").write_text(text)
        assert call("--from", "ids.txt")[0] != 0
        assert runner.open_job("out").counts["held"] == 2


@pytest.mark.slow
def test_queued_task_takes_an_id_and_nothing_else(held, call):
    _, result = held
    key = keys(result)[0]
    assert call(key, "--absent")[0] == 0
    code, said = call(key, "--absent")
    assert (code, "is queued, neither held nor in doubt" in said) == (2, True)
    assert call(key, "--adopt", "u-9")[0] == 0, "as audit found it"


def test_keys_that_begin_alike_are_two_tasks():
    """Of 100,000 keys two begin with the same eight digits more often than not: `--all` must still decide."""
    tasks = [Task(n, f"0bfde814{n:024}", "kling-gateway", "image", "m", State.HELD, None) for n in (1, 2)]
    absent = Resolved("absent", "ann")
    resolve._refuse_repeated([(task, absent) for task in tasks])
    with pytest.raises(UsageError, match="is named twice"):
        resolve._refuse_repeated([(tasks[0], absent), (tasks[0], absent)])


# the file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0bfde814\n", r"ids:1: no id behind the key"),
        ("0bfde814 a/../b\n", r"ids:1: no id of a provider"),
        ("key,id\n0bfde814,u\n", r"ids:1: 'key' is no key"),
        ("x\n" * 9, r"ids:1: .*ids:3: 'x' is no key and 6 more: nothing"),
        ("\n# nothing\n", r"names no task"),
    ],
)
def test_line_that_cannot_be_read_is_named(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ids").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_decisions(tmp_path.relative_to(tmp_path) / "ids", None, "ann")


def test_keys_alone_need_a_decision(tmp_path):
    path = tmp_path / "ids"
    path.write_text("\ufeff0bfde814\r\n5a7c21f0\r\n", encoding="utf-8")
    event = Resolved("absent", "ann")
    assert read_decisions(path, event, "ann") == [("0bfde814", event), ("5a7c21f0", event)]
    path.write_text("0bfde814 u-1\n")
    with pytest.raises(UsageError, match="nothing is adopted"):
        read_decisions(path, event, "ann")
