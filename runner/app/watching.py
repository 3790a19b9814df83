"""The progress view and the metrics file of a run, and the background tasks that keep both up to date."""

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

#: seconds between two updates of the progress view
_TICK = 0.25
#: seconds between two updates of the metrics file
_MEASURE = 60.0


async def begin(context: Rooms, stats: Tally) -> None:
    """Fill the run's stats with the counts and costs in the store."""
    counts = await context.store.counts()
    counts["queued"] = counts.get("queued", 0) - await context.store.gone()
    names = [pipeline.name for pipeline in context.pipelines]
    by_provider = {names[0]: counts} if len(names) == 1 else await context.store.counts_by_provider()
    stats.start(
        counts,
        context.clock.now(),
        shares={name: by_provider.get(name, {}) for name in names},
        cost_before=await context.store.spent(),
    )


@asynccontextmanager
async def watched(
    job: Job, settings: Settings, context: Rooms, run: Run, stats: Tally, options: Choices, stream: TextIO
) -> AsyncIterator[None]:
    """Show the run's progress on `stream`, and keep its metrics file up to date, during the block."""
    info = await _facts(job, settings, context)
    await anyio.to_thread.run_sync(_leave, job, info)
    with shown(info, stats, stream, quiet=options.quiet) as update:

        def update_view() -> None:
            stats.stopping = run.stopping
            update(context.clock.now())

        updaters = [asyncio.create_task(_every(_TICK, update_view))]
        if options.metrics_file is not None:
            updaters.append(asyncio.create_task(_measuring(options.metrics_file, job, stats, context.clock)))
        try:
            yield
        finally:
            succeeded = await _ended(updaters)
        if succeeded:
            update_view()


async def _ended(updaters: Sequence[asyncio.Task[None]]) -> bool:
    """Cancel the background tasks and return True if none had failed.

    Their exceptions are logged, because a bug in a view must not cost a run its summary.
    """
    for updater in updaters:
        updater.cancel()
    await asyncio.wait(updaters)
    bugs = [bug for each in updaters if not each.cancelled() and isinstance(bug := each.exception(), Exception)]
    for bug in bugs:
        logs.bug(bug)
    return not bugs


def _leave(job: Job, info: Facts) -> None:
    """Write what the live page shows of this run.

    A failure to do so is logged and stops nothing.
    """
    try:
        facts_file.write(job.state, info)
    except OSError as error:
        logs.warn(f"the live page will not know this run's limits: {error}")


async def _facts(job: Job, settings: Settings, context: Rooms) -> Facts:
    """Return the run's cap, units and limits.

    The units include those of providers whose tasks are all finished.
    """
    caps = {pipeline.spending.max_cost for pipeline in context.pipelines}
    specs = [pipeline.session.spec for pipeline in context.pipelines]
    known = names(settings.providers)
    every = [load(name, settings.providers) for name in await context.store.providers(again=True) if name in known]
    return Facts(
        job.manifest.name,
        units={spec.name: spec.unit for spec in (*every, *specs)},
        max_cost=caps.pop() if len(caps) == 1 else None,
        limits={spec.name: _limit(spec, job, settings) for spec in specs},
    )


def _limit(spec: Spec, job: Job, settings: Settings) -> float:
    """Return the provider's submit limit in submits a second."""
    loopback = lanes.on_loopback(lanes.base_url(spec, settings))
    return lanes.rates(spec, job.manifest, loopback=loopback)["submit"].per_second


async def _every(seconds: float, update: Callable[[], None]) -> None:
    """Call a function at intervals until cancelled."""
    while True:
        update()
        await anyio.sleep(seconds)


async def _measuring(path: Path, job: Job, stats: Tally, clock: Clock) -> None:
    """Write the metrics file at intervals until cancelled, because long runs are monitored before they end."""
    while True:
        totals = {"submitted": stats.submitted, "adopted": stats.adopted, "downloaded": stats.downloaded}
        await anyio.to_thread.run_sync(measure, path, job, clock.now(), totals)
        await anyio.sleep(_MEASURE)


def measure(path: Path, job: Job, now: float, totals: Mapping[str, Any], exit_code: int | None = None) -> None:
    """Write the metrics file.

    A failure to do so is logged and stops nothing.
    `now` is in seconds since the epoch, `totals` are the run's counters by name. `exit_code` is None during the run.
    """
    counts: dict[str, int] = {}
    cost, ready = None, None
    try:
        with suppress(NoSuchJob), view(job.state) as queries:
            counts, cost, ready = queries.counts(), queries.spent(), queries.oldest_ready()
        sample = Sample(
            job.manifest.name,
            now,
            running=exit_code is None,
            counts=counts,
            cost=cost,
            oldest_ready=0.0 if ready is None else max(0.0, now - ready),
            exit_code=exit_code,
            **{name: totals.get(name) for name in ("submitted", "adopted", "downloaded")},
        )
        metrics.write(path, sample)
    except (OSError, RunnerError) as error:
        logs.warn(f"--metrics-file: {error}")
