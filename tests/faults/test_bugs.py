"""FP14 and half of FP4: the n-th call of everything raises, for n = 1, 2, 3 … until a run makes no n-th call."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from importlib import import_module
from unittest import mock

import pytest

from tests.faults.conftest import FAST, ended, images, sandbox
from tests.simulation import world
from tests.simulation.faults import Life, Plan

#: work on one task: a bug in it is told, ends with exit 1, and stops nobody else's task
WORK = (
    ("kling", "runner.providers.dialect:Dialect.submit"),
    ("kling", "runner.pipeline.submit:read_submit"),
    ("kling", "runner.pipeline.poll:read_query"),
    ("kling", "runner.pipeline.download:DownloadStage._save"),
    ("kling", "runner.pipeline.download:DownloadStage._publish"),
    ("kling", "runner.store.store:Store.record"),
    ("kling", "runner.pipeline.session:ProviderSession.send"),
)
#: what every task goes through, and one call for many tasks: the run may end there, with an error
SHARED = (
    ("chanjing", "runner.pipeline.poll:read_many"),
    ("chanjing", "runner.store.store:Store.claim_queued"),
    ("chanjing", "runner.store.store:Store.claim"),
    ("chanjing", "runner.store.store:Store.claim_group"),
    ("chanjing", "runner.store.store:Store.settle"),
    ("chanjing", "runner.net.limiter:Limiter.take"),
    ("chanjing", "tests.simulation.world:Client.on_change"),
    ("kling", "runner.pipeline.settlement:Settlement.publish_claim"),
)
TASKS = 3


@dataclass
class Told:
    """What became of a simulated job of three tasks, the n-th call of something having raised."""

    calls: int = 0
    bugs: list[Exception] = field(default_factory=list)
    lives: list[str] = field(default_factory=list)
    #: tasks that were done when the first life ended
    done: int = 0
    report: world.Report | None = None


def nth(kind: str, place: str, number: int, error: type[Exception] = KeyError) -> Told:
    module, _, name = place.partition(":")
    *path, last = name.split(".")
    owner = import_module(module)
    for part in path:
        owner = getattr(owner, part)
    real, told = getattr(owner, last), Told()

    def counted() -> None:
        told.calls += 1
        if told.calls == number:
            raise error("a bug")

    def plain(*args, **kwargs):
        counted()
        return real(*args, **kwargs)

    async def waiting(*args, **kwargs):
        counted()
        return await real(*args, **kwargs)

    def ended(client, main):
        if not told.lives:
            told.done = client.world.counts.get("done", 0)
        raised = main.exception()
        told.lives.append(f"exit {int(main.result().exit)}" if raised is None else f"raised {type(raised).__name__}")
        return told.lives[-1]

    with (
        mock.patch.object(owner, last, waiting if inspect.iscoroutinefunction(real) else plain),
        mock.patch.object(world.Client, "_bug", lambda _, bug: told.bugs.append(bug)),
        mock.patch.object(world.Client, "_ended", ended),
    ):
        plan = Plan(seed=1, kind=kind, prompts=TASKS, takes=(1.0, 3.0), doubt=40.0, heals=100.0, lives=(Life(),))
        told.report = world.play(plan)
    return told


def sweep(kind: str, place: str):
    """Every n that a run comes to, each on a job of its own; nothing may ever be paid twice, lost or waited for."""
    number = 1
    while (told := nth(kind, place, number)).calls >= number:
        where = f"{place}, call {number}"
        assert told.report.violation is None, f"{where}: {told.report.violation}"
        yield where, told
        number += 1
    assert number > 1, f"{place} is not called any more"


@pytest.mark.parametrize(("kind", "place"), WORK, ids=lambda text: text.rpartition(":")[2])
def test_fp14_a_bug_in_the_work_on_one_task_stops_no_other(kind, place):
    for where, told in sweep(kind, place):
        assert told.lives[0] == "exit 1", where
        assert len(told.bugs) == 1, where
        assert told.done >= TASKS - 1, where
        assert told.report.states == {"done": TASKS}, where


@pytest.mark.parametrize(("kind", "place"), SHARED, ids=lambda text: text.rpartition(":")[2])
def test_fp14_a_bug_in_what_all_share_ends_the_run_and_loses_nothing(kind, place):
    for where, told in sweep(kind, place):
        assert told.lives[0] in {"exit 1", "raised KeyError"}, where
        assert told.report.states == {"done": TASKS}, where
        assert told.report.sents == TASKS, f"{where}: something was bought twice"


@pytest.mark.parametrize(("kind", "place"), WORK, ids=lambda text: text.rpartition(":")[2])
def test_fp04_memory_that_is_gone_in_a_handler_ends_the_run(kind, place):
    """Never "put it aside and go on": whoever goes on without memory does half of things."""
    told = nth(kind, place, 1, MemoryError)
    assert told.report.violation is None
    assert told.lives[0] == "raised MemoryError"
    assert told.bugs == []


BUGGY = """
from runner.net.download import Downloader
fetch, calls = Downloader.fetch, []
async def buggy(self, url, part):
    calls.append(url)
    if len(calls) == 2:
        raise KeyError("a bug")
    return await fetch(self, url, part)
Downloader.fetch = buggy
"""


def test_fp14_the_command_tells_of_a_bug_and_the_next_one_goes_on(rig):
    rig.write("job.yaml", images(5))
    with sandbox(*FAST) as box:
        code, summary, err = ended(rig.sick(BUGGY, "run", "job.yaml", "--json", env=box.env))
        assert (code, summary["counts"]) == (1, {"done": 4, "ready": 1}), err
        assert "a bug" in err
        rig.finishes(box, 5)
