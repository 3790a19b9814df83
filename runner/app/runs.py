"""A run, from lock to summary."""

from __future__ import annotations

from contextlib import AsyncExitStack, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TextIO

import anyio
import anyio.to_thread

from runner import logs
from runner.app.checks import broken_files, broken_keys
from runner.app.closing import closed, shown
from runner.app.embedded import sandbox
from runner.app.pretending import ledger
from runner.app.registering import dismiss, enlist, remembered
from runner.app.rooms import Choices, Rooms, Verb, open_rooms
from runner.app.tidying import missing
from runner.app.watching import begin, watched
from runner.errors import StateError
from runner.lifecycle.events import Retried
from runner.lifecycle.task import State
from runner.lifecycle.transitions import advance
from runner.pipeline.clock import Clock
from runner.pipeline.outcome import Exit
from runner.pipeline.run import EVERY_STAGE, Run
from runner.report.tally import Tally
from runner.store import ground
from runner.store.lock import job_lock

if TYPE_CHECKING:
    from pathlib import Path

    from runner.app.jobs import Job
    from runner.lifecycle.task import Task
    from runner.pipeline.outcome import RunOutcome
    from runner.pipeline.pipeline import ProviderPipeline
    from runner.report.advice import Findings
    from runner.settings import Settings
    from runner.store.registry import Entry
    from runner.store.store import Store

#: what each verb works on; without `queued` nothing is bought
_STAGES: dict[Verb, tuple[State, ...]] = {
    "run": EVERY_STAGE,
    "retry": (State.IN_DOUBT, State.RUNNING, State.READY),
    "reconcile": (State.IN_DOUBT,),
    "verify": (State.RUNNING, State.READY),
    "audit": (),
}


def execute(job: Job, choices: Choices, stream: TextIO) -> tuple[dict[str, Any], Findings]:
    """Run the job; the promised summary, and what is not as it should be."""
    _refuse_amnesia(job)
    if choices.verb == "verify":
        choices = replace(choices, again=any(broken_files(job.directory)))
    ground.check(job.directory, remote=job.settings.text("RUNNER_NETWORK_DISK") is not None)
    accepted = ledger(job.state)
    with job_lock(job.state, wait=choices.wait_lock):
        if choices.verb == "run" and missing(job.directory):  # not before: another run may be making the state
            choices = replace(choices, again=True)
        with sandbox(job.settings, accepted) if job.in_sandbox else nullcontext(job.settings) as settings:
            tally, clock = Tally(), Clock()
            began = clock.now()
            outcome = anyio.run(_run, job, settings, choices, tally, clock, stream)
        told = closed(job, choices, outcome, tally, clock.now() - began)
        shown(job, clock, told[1].unit, hurried=outcome.exit in {Exit.HUP, Exit.INT, Exit.TERM})
        return told


def _refuse_amnesia(job: Job) -> None:
    """Results without a state are those of a job whose state was deleted: to begin again would be to buy again."""
    results_file = job.directory / "results.jsonl"
    known = any((job.state / name).exists() for name in ("state.db", "journal.jsonl"))
    if results_file.exists() and not known:
        raise StateError(
            f"{results_file} is here, but the job's state ({job.state}) is gone",
            hint="Put the state back; or, to buy everything anew, move the results away or choose --out.",
        )


async def _run(
    job: Job, settings: Settings, choices: Choices, tally: Tally, clock: Clock, stream: TextIO
) -> RunOutcome:
    async with AsyncExitStack() as stack:
        rooms = await open_rooms(job, settings, choices, stack, tally, clock)
        store = rooms.store
        entry = await _enlisted(rooms, job, choices) if choices.buys else None
        if entry is not None:
            await stack.enter_async_context(remembered(rooms.registries, store))
        await _again(store, rooms.pipelines, clock, choices, job.directory)
        await begin(rooms, tally)
        run = Run(
            rooms.pipelines,
            store=store,
            directory=job.directory,
            clock=clock,
            notifier=rooms.notifier,
            deadline=_earlier(choices.deadline, job.manifest.limits.deadline),
            on_bug=logs.bug,
            stages=EVERY_STAGE if choices.failed else _STAGES[choices.verb],
        )
        async with watched(job, settings, rooms, run, tally, choices, stream):
            outcome = await run.run()
        if entry is not None and outcome.exit in {Exit.DONE, Exit.FAILED}:
            await dismiss(rooms.registries, entry)
        return outcome


async def _enlisted(rooms: Rooms, job: Job, choices: Choices) -> Entry:
    now, anew = rooms.clock.now(), choices.anew
    name, directory = job.manifest.name, str(await anyio.to_thread.run_sync(job.directory.resolve))
    return await enlist(rooms.registries, rooms.store, name=name, directory=directory, now=now, anew=anew)


def _earlier(*times: float | None) -> float | None:
    return min((time for time in times if time is not None), default=None)


async def _again(
    store: Store, pipelines: list[ProviderPipeline], clock: Clock, choices: Choices, directory: Path
) -> None:
    """What a person asked for again: stranded tasks, failed ones where that was said, files that are not whole."""
    by_name = {pipeline.name: pipeline for pipeline in pipelines}
    for task in await _asked_for(store, choices, directory):
        if task.provider in by_name:
            after = advance(task, Retried(), clock.now(), by_name[task.provider].settlement.policy)
            await store.settle(task, after)


async def _asked_for(store: Store, choices: Choices, directory: Path) -> list[Task]:
    if choices.verb in {"run", "verify"}:
        look = broken_keys if choices.verb == "verify" else missing
        keys = await anyio.to_thread.run_sync(look, directory)
        return [task for key in keys for task in await store.by_key(key)]
    states = (State.STRANDED, *([State.FAILED] if choices.failed else [])) if choices.verb == "retry" else ()
    every = [task for state in states for task in await store.in_state(state)]
    meant = [task for task in every if _is_meant(task.fault.reason, choices.reason)]
    if every and choices.reason is not None and not meant and not choices.quiet:
        reasons = ", ".join(sorted({task.fault.reason or "unknown" for task in every}))
        logs.warn(f"--reason {choices.reason}: nothing is lost for that reason, but for: {reasons}")
    return meant


def _is_meant(reason: str | None, wanted: str | None) -> bool:
    """What a person gave up stays given up, unless it is asked for by that very reason."""
    return reason == wanted if wanted is not None else reason != "abandoned"
