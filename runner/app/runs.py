"""`run` and the verbs that resume it: from lock to summary."""

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
from runner.app.rooms import Choices, Verb, open_rooms
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
    from runner.store.store import Store

#: states whose tasks each verb works on; without `queued` nothing is bought
_STAGES: dict[Verb, tuple[State, ...]] = {
    "run": EVERY_STAGE,
    "retry": (State.IN_DOUBT, State.RUNNING, State.READY),
    "reconcile": (State.IN_DOUBT,),
    "verify": (State.RUNNING, State.READY),
    "audit": (),
}


def execute(job: Job, options: Choices, stream: TextIO) -> tuple[dict[str, Any], Findings]:
    """Run the job and return its summary and the issues that it left.

    Shows progress on `stream`.
    Raises RunnerError if the run cannot begin or its results cannot be written.
    """
    _refuse_amnesia(job)
    if options.verb == "verify":
        options = replace(options, again=any(broken_files(job.directory)))
    ground.check(job.directory, remote=job.settings.text("RUNNER_NETWORK_DISK") is not None)
    sandbox_ledger = ledger(job.state)
    with job_lock(job.state, wait=options.wait_lock):
        if options.verb == "run" and missing(job.directory):  # under the lock: another run may be making the state
            options = replace(options, again=True)
        with sandbox(job.settings, sandbox_ledger) if job.in_sandbox else nullcontext(job.settings) as settings:
            stats, clock = Tally(), Clock()
            began = clock.now()
            outcome = anyio.run(_run, job, settings, options, stats, clock, stream)
        summary, issues = closed(job, options, outcome, stats, clock.now() - began)
        shown(job, clock, issues.unit, hurried=outcome.exit in {Exit.HUP, Exit.INT, Exit.TERM})
        return summary, issues


def _refuse_amnesia(job: Job) -> None:
    """Raise StateError if there are results but no state: the state was deleted, and a run would buy all again."""
    results_file = job.directory / "results.jsonl"
    known = any((job.state / name).exists() for name in ("state.db", "journal.jsonl"))
    if results_file.exists() and not known:
        raise StateError(
            f"{results_file} is here, but the job's state ({job.state}) is gone",
            hint="Put the state back; or, to buy everything anew, move the results away or choose --out.",
        )


async def _run(
    job: Job, settings: Settings, options: Choices, stats: Tally, clock: Clock, stream: TextIO
) -> RunOutcome:
    """Open the run's resources, register the run, requeue what was asked for, and work until the run ends."""
    async with AsyncExitStack() as stack:
        context = await open_rooms(job, settings, options, stack, stats, clock)
        store, registries, entry = context.store, context.registries, None
        if options.buys:
            now, name = clock.now(), job.manifest.name
            directory = str(await anyio.to_thread.run_sync(job.directory.resolve))
            entry = await enlist(registries, store, name=name, directory=directory, now=now, anew=options.anew)
            await stack.enter_async_context(remembered(registries, store))
        await _again(store, context.pipelines, clock, options, job.directory)
        await begin(context, stats)
        deadlines = [each for each in (options.deadline, job.manifest.limits.deadline) if each is not None]
        run = Run(
            context.pipelines,
            store=store,
            directory=job.directory,
            clock=clock,
            notifier=context.notifier,
            deadline=min(deadlines, default=None),
            on_bug=logs.bug,
            stages=EVERY_STAGE if options.failed else _STAGES[options.verb],
        )
        async with watched(job, settings, context, run, stats, options, stream):
            outcome = await run.run()
        if entry is not None and outcome.exit in {Exit.DONE, Exit.FAILED}:
            await dismiss(registries, entry)
        return outcome


async def _again(
    store: Store, pipelines: list[ProviderPipeline], clock: Clock, options: Choices, directory: Path
) -> None:
    """Requeue the tasks that the user asked for again: stranded, failed, or with missing or changed files."""
    by_name = {pipeline.name: pipeline for pipeline in pipelines}
    for task in await _asked_for(store, options, directory):
        if task.provider in by_name:
            after = advance(task, Retried(), clock.now(), by_name[task.provider].settlement.policy)
            await store.settle(task, after)


async def _asked_for(store: Store, options: Choices, directory: Path) -> list[Task]:
    """Return the tasks to requeue.

    Warns if `--reason` names a reason that no task has.
    """
    if options.verb in {"run", "verify"}:
        find_keys = broken_keys if options.verb == "verify" else missing
        keys = await anyio.to_thread.run_sync(find_keys, directory)
        return [task for key in keys for task in await store.by_key(key)]
    states = (State.STRANDED, *([State.FAILED] if options.failed else [])) if options.verb == "retry" else ()
    lost = [task for state in states for task in await store.in_state(state)]
    chosen = [task for task in lost if _is_meant(task.fault.reason, options.reason)]
    if lost and options.reason is not None and not chosen and not options.quiet:
        reasons = ", ".join(sorted({task.fault.reason or "unknown" for task in lost}))
        logs.warn(f"--reason {options.reason}: nothing is lost for that reason, but for: {reasons}")
    return chosen


def _is_meant(reason: str | None, wanted: str | None) -> bool:
    """Return True if a lost task is to be requeued.

    Tasks that the user abandoned need that very reason.
    """
    return reason == wanted if wanted is not None else reason != "abandoned"
