"""Watching a run: what its view must know beforehand, and the hands that keep the view and the metrics file fresh."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

import anyio
import anyio.to_thread

from runner import logs
from runner.app import lanes
from runner.errors import NoSuchJob, RunnerError
from runner.providers.spec import load, names
from runner.report import facts_file, metrics
from runner.report.metrics import Sample
from runner.report.progress import Facts, shown
from runner.store.view import view

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from runner.app.jobs import Job
    from runner.app.rooms import Choices, Rooms
    from runner.pipeline.clock import Clock
    from runner.pipeline.run import Run
    from runner.providers.spec import Spec
    from runner.report.tally import Tally
    from runner.settings import Settings

#: seconds between two looks of the progress view
_TICK = 0.25
#: seconds between two versions of the metrics file
_MEASURE = 60.0


async def begin(rooms: Rooms, tally: Tally) -> None:
    """Fill the tally with what the store holds."""
    counts = await rooms.store.counts()
    counts["queued"] = counts.get("queued", 0) - await rooms.store.gone()
    names = [pipeline.name for pipeline in rooms.pipelines]
    shares = {names[0]: counts} if len(names) == 1 else await rooms.store.counts_by_provider()
    tally.start(
        counts,
        rooms.clock.now(),
        shares={name: shares.get(name, {}) for name in names},
        cost_before=await rooms.store.spent(),
    )


@asynccontextmanager
async def watched(
    job: Job, settings: Settings, rooms: Rooms, run: Run, tally: Tally, choices: Choices, stream: TextIO
) -> AsyncIterator[None]:
    """The run is seen for the length of the block."""
    facts = await _facts(job, settings, rooms)
    await anyio.to_thread.run_sync(_leave, job, facts)
    with shown(facts, tally, stream, quiet=choices.quiet) as update:

        def look() -> None:
            tally.stopping = run.stopping
            update(rooms.clock.now())

        hands = [asyncio.create_task(_every(_TICK, look))]
        if choices.metrics_file is not None:
            hands.append(asyncio.create_task(_measuring(choices.metrics_file, job, tally, rooms.clock)))
        try:
            yield
        finally:
            sound = await _ended(hands)
        if sound:
            look()


async def _ended(hands: Sequence[asyncio.Task[None]]) -> bool:
    """Whether they did nothing wrong until they were stopped; a bug in a view must not cost a run its summary."""
    for hand in hands:
        hand.cancel()
    await asyncio.wait(hands)
    bugs = [bug for hand in hands if not hand.cancelled() and isinstance(bug := hand.exception(), Exception)]
    for bug in bugs:
        logs.bug(bug)
    return not bugs


def _leave(job: Job, facts: Facts) -> None:
    """For the live page; that it cannot be written is told and stops nothing."""
    try:
        facts_file.write(job.state, facts)
    except OSError as error:
        logs.warn(f"the live page will not know this run's limits: {error}")


async def _facts(job: Job, settings: Settings, rooms: Rooms) -> Facts:
    caps = {pipeline.spending.max_cost for pipeline in rooms.pipelines}
    specs = [pipeline.session.spec for pipeline in rooms.pipelines]
    known = names(settings.providers)
    every = [load(name, settings.providers) for name in await rooms.store.providers(again=True) if name in known]
    return Facts(
        job.manifest.name,
        units={spec.name: spec.unit for spec in (*every, *specs)},
        max_cost=caps.pop() if len(caps) == 1 else None,
        limits={spec.name: _limit(spec, job, settings) for spec in specs},
    )


def _limit(spec: Spec, job: Job, settings: Settings) -> float:
    """Submits a second."""
    loopback = lanes.on_loopback(lanes.base_url(spec, settings))
    return lanes.rates(spec, job.manifest, loopback=loopback)["submit"].per_second


async def _every(seconds: float, look: Callable[[], None]) -> None:
    while True:
        look()
        await anyio.sleep(seconds)


async def _measuring(path: Path, job: Job, tally: Tally, clock: Clock) -> None:
    """A long run is worth watching before it ends; what cannot be written now may be later."""
    while True:
        done = {"submitted": tally.submitted, "adopted": tally.adopted, "downloaded": tally.downloaded}
        await anyio.to_thread.run_sync(measure, path, job, clock.now(), done)
        await anyio.sleep(_MEASURE)


def measure(path: Path, job: Job, now: float, done: Mapping[str, Any], exit_code: int | None = None) -> None:
    """Write the metrics file; that it cannot be written is told and stops nothing."""
    try:
        metrics.write(path, _sample(job, now, done, exit_code))
    except (OSError, RunnerError) as error:
        logs.warn(f"--metrics-file: {error}")


def _sample(job: Job, now: float, done: Mapping[str, Any], exit_code: int | None) -> Sample:
    counts: dict[str, int] = {}
    cost, ready = None, None
    with suppress(NoSuchJob), view(job.state) as seen:
        counts, cost, ready = seen.counts(), seen.spent(), seen.oldest_ready()
    return Sample(
        job.manifest.name,
        now,
        running=exit_code is None,
        counts=counts,
        cost=cost,
        oldest_ready=0.0 if ready is None else max(0.0, now - ready),
        exit_code=exit_code,
        **{name: done.get(name) for name in ("submitted", "adopted", "downloaded")},
    )
