"""FP14 and part of FP4: the n-th call of each function raises, for n = 1, 2, 3 … until a run makes no n-th call."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from importlib import import_module
from unittest import mock

import pytest

from tests.faults.conftest import FAST, ended, images, sandbox
from tests.simulation import world
from tests.simulation.faults import Life, Plan

#: work on one task: a bug in it is reported, ends with exit 1, and stops no other task
WORK = (
    ("kling", "runner.providers.requests:Dialect.submit"),
    ("kling", "runner.scheduler.submit:read_submit"),
    ("kling", "runner.scheduler.poll:read_query"),
    ("kling", "runner.scheduler.download:DownloadStage._save"),
    ("kling", "runner.scheduler.download:DownloadStage._publish"),
    ("kling", "runner.store.store:Store.record_file"),
    ("kling", "runner.scheduler.session:ProviderSession.send"),
)
#: what every task goes through, and one call for many tasks: the run may end there, with an error
SHARED = (
    ("chanjing", "runner.scheduler.poll:read_many"),
    ("chanjing", "runner.store.store:Store.claim_queued"),
    ("chanjing", "runner.store.store:Store.claim"),
    ("chanjing", "runner.store.store:Store.claim_group"),
    ("chanjing", "runner.store.store:Store.settle"),
    ("chanjing", "runner.ratelimit.limiter:Limiter.acquire_slot"),
    ("chanjing", "tests.simulation.world:Client.on_change"),
    ("kling", "runner.scheduler.settlement:Settlement.publish_claim"),
)
TASKS = 3


@dataclass
class SweepResult:
    """The outcome of a simulated job of three tasks in which the n-th call of a function raised."""

    calls: int = 0
    bugs: list[Exception] = field(default_factory=list)
    lives: list[str] = field(default_factory=list)
    #: tasks that were done when the first life ended
    done: int = 0
    report: world.Report | None = None


def nth(kind: str, place: str, number: int, error: type[Exception] = KeyError) -> SweepResult:
    module, _, name = place.partition(":")
    *path, last = name.split(".")
    owner = import_module(module)
    for part in path:
        owner = getattr(owner, part)
    real, result = getattr(owner, last), SweepResult()

    def counted() -> None:
        result.calls += 1
        if result.calls == number:
            raise error("a bug")

    def plain(*args, **kwargs):
        counted()
        return real(*args, **kwargs)

    async def waiting(*args, **kwargs):
        counted()
        return await real(*args, **kwargs)

    def ended(client, main):
        if not result.lives:
            result.done = client.world.counts.get("done", 0)
        raised = main.exception()
        result.lives.append(f"exit {int(main.result().exit)}" if raised is None else f"raised {type(raised).__name__}")
        return result.lives[-1]

    with (
        mock.patch.object(owner, last, waiting if inspect.iscoroutinefunction(real) else plain),
        mock.patch.object(world.Client, "_bug", lambda _, bug: result.bugs.append(bug)),
        mock.patch.object(world.Client, "_ended", ended),
    ):
        plan = Plan(seed=1, kind=kind, prompts=TASKS, takes=(1.0, 3.0), doubt=40.0, heals=100.0, lives=(Life(),))
        result.report = world.play(plan)
    return result


def sweep(kind: str, place: str):
    """Yield the outcome for every n that a run reaches, each in its own job. Nothing is paid twice or lost."""
    number = 1
    while (result := nth(kind, place, number)).calls >= number:
        where = f"{place}, call {number}"
        assert result.report.violation is None, f"{where}: {result.report.violation}"
        yield where, result
        number += 1
    assert number > 1, f"{place} is not called any more"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "place"), WORK, ids=lambda text: text.rpartition(":")[2])
def test_fp14_bug_in_one_task_does_not_stop_others(kind, place):
    for where, result in sweep(kind, place):
        assert result.lives[0] == "exit 1", where
        assert len(result.bugs) == 1, where
        assert result.done >= TASKS - 1, where
        assert result.report.states == {"done": TASKS}, where


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "place"), SHARED, ids=lambda text: text.rpartition(":")[2])
def test_fp14_bug_in_shared_code_ends_run_without_loss(kind, place):
    """A bug in code that all tasks share ends the run and loses nothing."""
    for where, result in sweep(kind, place):
        assert result.lives[0] in {"exit 1", "raised KeyError"}, where
        assert result.report.states == {"done": TASKS}, where
        assert result.report.sents == TASKS, f"{where}: something was bought twice"


@pytest.mark.parametrize(("kind", "place"), WORK, ids=lambda text: text.rpartition(":")[2])
def test_fp04_memory_error_in_handler_ends_run(kind, place):
    """Never skip the task and continue: without memory, code leaves things half done."""
    result = nth(kind, place, 1, MemoryError)
    assert result.report.violation is None
    assert result.lives[0] == "raised MemoryError"
    assert result.bugs == []


BUGGY = """
from runner.net.downloader import Downloader
fetch, calls = Downloader.fetch, []
async def buggy(self, url, part):
    calls.append(url)
    if len(calls) == 2:
        raise KeyError("a bug")
    return await fetch(self, url, part)
Downloader.fetch = buggy
"""


@pytest.mark.slow
def test_fp14_command_reports_bug_and_next_run_continues(rig):
    """The command reports a bug, and the next run continues the job."""
    rig.write("job.yaml", images(5))
    with sandbox(*FAST) as box:
        code, summary, err = ended(rig.sick(BUGGY, "run", "job.yaml", "--json", env=box.env))
        assert (code, summary["counts"]) == (1, {"done": 4, "ready": 1}), err
        assert "a bug" in err
        rig.finishes(box, 5)
