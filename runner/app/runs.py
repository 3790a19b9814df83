"""A run from lock to summary, and a person's decision on a held task."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path  # noqa: TC003 - part of a public value
from typing import TYPE_CHECKING, Any, Literal, TextIO

import anyio
import anyio.to_thread

from runner import logs
from runner.app import lanes
from runner.app.checks import broken_keys
from runner.app.crash import points
from runner.app.embedded import sandbox
from runner.errors import StateError, UsageError
from runner.lifecycle.events import Resolved, Retried
from runner.lifecycle.patience import Patience
from runner.lifecycle.task import State
from runner.lifecycle.transitions import advance
from runner.net.download import Downloader
from runner.net.limiter import Window
from runner.pipeline.bell import Bell
from runner.pipeline.clock import Clock
from runner.pipeline.lane import Lane
from runner.pipeline.run import EVERY_STAGE, Run
from runner.providers import spec as specs
from runner.providers.dialect import Dialect
from runner.report import results
from runner.report.progress import shown
from runner.report.summary import summary
from runner.report.tally import Tally
from runner.store import ground
from runner.store.lock import job_lock
from runner.store.store import Store
from runner.store.view import view

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.app.jobs import Job
    from runner.lifecycle.events import Event
    from runner.lifecycle.task import Task
    from runner.pipeline.outcome import Outcome
    from runner.providers.spec import Spec
    from runner.settings import Settings

Verb = Literal["run", "retry", "reconcile", "verify", "audit"]
#: what each verb works on; without `queued` nothing is bought
_STAGES: dict[Verb, tuple[State, ...]] = {
    "run": EVERY_STAGE,
    "retry": EVERY_STAGE,
    "reconcile": (State.IN_DOUBT,),
    "verify": (State.RUNNING, State.READY),
    "audit": (),
}
#: seconds that `verify` tries to fetch what the provider may have forgotten long ago
_VERIFYING = 600.0
#: seconds between two looks of the progress line
_TICK = 0.25


@dataclass(frozen=True, slots=True)
class Choices:
    """What the command line chose for one run."""

    quiet: bool = False
    deadline: float | None = None
    wait_lock: float = 0.0
    verb: Verb = "run"
    #: the job directory, where the command line chose it
    out: Path | None = None
    #: `retry`: failed tasks too, and for which reason only
    failed: bool = False
    reason: str | None = None


def execute(job: Job, choices: Choices, stream: TextIO) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run the job; the promised summary, and the reasons of what failed."""
    _refuse_amnesia(job)
    ground.check(job.directory)
    ledger = job.state / "sandbox.jsonl"
    with job_lock(job.state, wait=choices.wait_lock):
        with sandbox(job.settings, ledger) if job.in_sandbox else nullcontext(job.settings) as settings:
            tally, clock = Tally(), Clock()
            began = clock.now()
            outcome = anyio.run(_run, job, settings, choices, tally, clock, stream)
        with view(job.state) as seen:
            results.write(job.directory / "results.jsonl", seen.results())
            told = summary(
                job.manifest.name,
                exit_code=outcome.exit,
                reasons=[ending.why for ending in outcome.endings],
                counts=seen.counts(),
                tally=tally,
                in_doubt=[task["key"] for task in (*seen.in_state("in_doubt"), *seen.in_state("held"))],
                seconds=clock.now() - began,
                words=_words(job, choices),
            )
            return told, seen.faults()


@dataclass(frozen=True, slots=True)
class Rooms:
    """What a verb works in, open until its stack closes."""

    store: Store
    lanes: list[Lane]
    clock: Clock
    bell: Bell


async def open_rooms(
    job: Job,
    settings: Settings,
    choices: Choices,
    stack: AsyncExitStack,
    tally: Tally | None = None,
    clock: Clock | None = None,
) -> Rooms:
    """The store, the job's drafts in it where the verb may buy them, and a lane for each provider it has work with."""
    clock, bell, reach = clock or Clock(), Bell(), points(settings)
    store = await Store.open(job.state, reach=reach)
    stack.push_async_callback(store.aclose)
    await store.name(job.manifest.name)
    if choices.verb in {"run", "retry"}:
        await store.add(job.additions(), job.digest, clock.now())
    rooms = Rooms(store, [], clock, bell)
    hear = _hearing(tally or Tally(), clock)
    for name in sorted(await store.providers(again=choices.verb in {"retry", "verify", "audit"})):
        rooms.lanes.append(await _lane(name, job, settings, rooms, hear, stack, reach, choices))
    return rooms


def _words(job: Job, choices: Choices) -> list[str]:
    """The manifest and the options that the next command needs as well: without them it would be another job."""
    out = ["--out", str(choices.out)] if choices.out else []
    return [job.manifest.file, *(["--sandbox"] if job.in_sandbox else []), *out]


def _refuse_amnesia(job: Job) -> None:
    """Results without a state are those of a job whose state was deleted: to begin again would be to buy again."""
    results_file = job.directory / "results.jsonl"
    if results_file.exists() and not job.state.exists():
        raise StateError(
            f"{results_file} is here, but the job's state ({job.state}) is gone",
            hint="Put the state back; or, to buy everything anew, move the results away or choose --out.",
        )


async def _run(job: Job, settings: Settings, choices: Choices, tally: Tally, clock: Clock, stream: TextIO) -> Outcome:
    async with AsyncExitStack() as stack:
        rooms = await open_rooms(job, settings, choices, stack, tally, clock)
        store = rooms.store
        await _again(store, rooms.lanes, clock, choices, job.directory)
        counts = await store.counts()
        tally.start({**counts, "queued": counts.get("queued", 0) - await store.gone()})
        run = Run(
            rooms.lanes,
            store=store,
            directory=job.directory,
            clock=clock,
            bell=rooms.bell,
            deadline=_earlier(choices.deadline, job.manifest.limits.deadline),
            on_bug=logs.bug,
            stages=_STAGES[choices.verb],
        )
        with shown(job.manifest.name, tally, stream, quiet=choices.quiet) as update:
            ticking = asyncio.create_task(_tick(update, clock))
            try:
                outcome = await run.run()
            finally:
                ticking.cancel()
            update(clock.now())
        return outcome


def _earlier(*times: float | None) -> float | None:
    return min((time for time in times if time is not None), default=None)


async def _tick(update: Callable[[float], None], clock: Clock) -> None:
    while True:
        update(clock.now())
        await anyio.sleep(_TICK)


def _hearing(tally: Tally, clock: Clock) -> Callable[[Task, Event, Task], None]:
    log = logs.listener()

    def hear(before: Task, event: Event, after: Task) -> None:
        tally.hear(before, event, after, clock.now())
        # whoever read our lines may be gone; that must not stop a run with money in flight (FP8)
        with suppress(OSError):
            log(before, event, after)

    return hear


async def _lane(
    name: str,
    job: Job,
    settings: Settings,
    rooms: Rooms,
    hear: Callable[[Task, Event, Task], None],
    stack: AsyncExitStack,
    reach: Callable[[str], None],
    choices: Choices,
) -> Lane:
    """One provider's lane, its address bound to the job before anything is asked there."""
    spec, manifest = specs.load(name, settings.providers), job.manifest
    url = lanes.base_url(spec, settings)
    loopback = lanes.on_loopback(url)
    gateway = lanes.gateway(spec, settings)
    stack.push_async_callback(gateway.aclose)
    downloader = _downloader(spec, job, loopback=loopback)
    stack.push_async_callback(downloader.aclose)
    await rooms.store.bind(name, lanes.origin(url))
    return Lane(
        spec=spec,
        dialect=Dialect(spec),
        gateway=gateway,
        downloader=downloader,
        limiters=lanes.limiters(spec, manifest, loopback=loopback),
        window=Window(manifest.limits.in_flight),
        patience=_patience(spec, job, choices, loopback=loopback),
        store=rooms.store,
        clock=rooms.clock,
        bell=rooms.bell,
        on_change=hear,
        emergency=logs.emergency,
        reach=reach,
        notice=logs.warn,
        hands=8 if spec.can_look_up else 2,
        downloads=manifest.limits.downloads or max(4, spec.limits.downloads),
    )


def _patience(spec: Spec, job: Job, choices: Choices, *, loopback: bool) -> Patience:
    whole = lanes.patience(spec, job.manifest, loopback=loopback)
    return replace(whole, paid=min(whole.paid, _VERIFYING)) if choices.verb == "verify" else whole


def _downloader(spec: Spec, job: Job, *, loopback: bool) -> Downloader:
    return Downloader(per_host=job.manifest.limits.downloads or spec.limits.downloads, loopback=loopback)


async def _again(store: Store, made: list[Lane], clock: Clock, choices: Choices, directory: Path) -> None:
    """What a person asked for again: stranded tasks, failed ones where that was said, files that are not whole."""
    by_name = {lane.name: lane for lane in made}
    for task in await _asked_for(store, choices, directory):
        if task.provider in by_name:
            after = advance(task, Retried(), clock.now(), by_name[task.provider].patience)
            await store.settle(task, after)


async def _asked_for(store: Store, choices: Choices, directory: Path) -> list[Task]:
    if choices.verb == "verify":
        keys = await anyio.to_thread.run_sync(broken_keys, directory)
        return [task for key in keys for task in await store.by_key(key)]
    states = (State.STRANDED, *([State.FAILED] if choices.failed else [])) if choices.verb == "retry" else ()
    every = [task for state in states for task in await store.in_state(state)]
    return [task for task in every if choices.reason in {None, task.fault.reason}]


def decide(directory: Path, key: str, event: Resolved) -> dict[str, Any]:
    """Write a person's decision on one held task; raises UsageError, StateError."""
    state = directory / ".runner"
    with view(state):
        pass
    with job_lock(state):
        return anyio.run(_decide, state, key, event)


async def _decide(state: Path, key: str, event: Resolved) -> dict[str, Any]:
    store = await Store.open(state)
    try:
        task = await _held(store, key)
        after = advance(task, event, Clock().now(), Patience())
        settled = await store.settle(task, after)
    finally:
        await store.aclose()
    if settled != "done":
        raise StateError(f"{event.remote_id} belongs to another task already", hint="Check the id at the provider.")
    told = {"adopt": "the next run fetches it", "absent": "the next run buys it", "abandon": "nothing more happens"}
    return {"key": task.key, "state": str(after.state), "by": event.by, "next": told[event.verdict]}


async def _held(store: Store, key: str) -> Task:
    found = await store.by_key(key)
    if len(found) != 1:
        many = "several tasks begin so" if found else "no task has that key"
        raise UsageError(f"{key}: {many}", hint="`runner status` lists the held ones.")
    if found[0].state is not State.HELD:
        raise UsageError(f"{key} is {found[0].state}, not held", hint="Only a held task waits for a person.")
    return found[0]
