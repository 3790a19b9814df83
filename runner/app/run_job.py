"""`run` and the verbs that resume it: from lock to summary."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from runner.app import provider_config
from runner.app.account_state import known_accounts
from runner.app.earlier_purchases import (
    EarlierPurchases,
    adopt_all_remembered,
    begin_remembering,
    remember_while_running,
    use_earlier_purchases,
)
from runner.app.embedded_sandbox import ledger_path, sandbox_process
from runner.app.event_loop import LOOP_OPTIONS
from runner.app.issues import job_issues
from runner.app.job_lease import Fence, open_lease
from runner.app.job_registry import ADOPT_HINT, mark_finished, record_while_running, register_run
from runner.app.merged_files import finish_merged_rows
from runner.app.output_files import broken_files, keys_of_broken_files, keys_of_missing_files
from runner.app.results_writer import ResultsWriter
from runner.app.run_context import FILES_LIVE, MOST_UNSERVED, RunOptions, Verb, open_context
from runner.app.state_binding import bind_state, check_binding, rescue_journal, watch_registers
from runner.errors import JobNotFoundError, RunnerError, StateError, UsageError
from runner.providers.spec import load, spec_paths
from runner.report import metrics
from runner.report.guarantee_text import guarantee_dict
from runner.report.metrics import JobMetrics
from runner.report.results import iso_timestamp
from runner.report.run_info import RunInfo, write_run_info
from runner.report.stats import RunStats
from runner.report.summary import summary
from runner.scheduler.clock import Clock
from runner.scheduler.outcome import Exit, run_outcome
from runner.scheduler.run import EVERY_STAGE, SIGNALS, Run
from runner.store import filesystem
from runner.store.lock import job_lock
from runner.store.read_only import open_read_only
from runner.tasks.events import Accepted, Retried
from runner.tasks.models import State
from runner.tasks.transitions import advance
from runner.units import seconds_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from runner.app.job import LoadedJob
    from runner.app.observer import Observer, StopSwitch
    from runner.app.run_context import RunContext
    from runner.providers.spec import Spec
    from runner.report.summary import JobIssues
    from runner.scheduler.outcome import RunOutcome
    from runner.settings import Settings
    from runner.store.store import Store
    from runner.tasks.models import Task


#: states whose tasks each verb works on; without `queued` nothing is bought
_STAGES: dict[Verb, tuple[State, ...]] = {
    "run": EVERY_STAGE,
    "retry": (State.IN_DOUBT, State.RUNNING, State.READY),
    "reconcile": (State.IN_DOUBT,),
    "verify": (State.RUNNING, State.READY),
    "audit": (),
}


def execute(
    job: LoadedJob, options: RunOptions, observer: Observer, *, stop: StopSwitch | None = None
) -> tuple[dict[str, Any], JobIssues]:
    """Run the job in an event loop of this thread, and return its summary and the issues that it left.

    `stop` ends the run early. Without it the run handles INT, TERM and HUP, which only the main thread can.
    Raises RunnerError if the run cannot begin or its results cannot be written.
    """
    _refuse_lost_state(job)
    if options.verb == "verify":
        options = replace(options, again=any(broken_files(job.directory)))
    filesystem.check(job.directory, allow_remote=job.settings.text("RUNNER_NETWORK_DISK") is not None)
    sandbox_ledger = ledger_path(job.state_directory)
    is_cancelled = (lambda: False) if stop is None else stop.is_requested
    with job_lock(job.state_directory, wait=options.wait_lock, is_cancelled=is_cancelled):
        if options.verb == "run" and keys_of_missing_files(
            job.directory
        ):  # under the lock: another run may be making the state
            options = replace(options, again=True)
        if options.buy_again or options.buy_again_keys:  # finished tasks may be bought
            options = replace(options, again=options.again or options.may_buy)
        with sandbox_process(job.settings, sandbox_ledger) if job.in_sandbox else nullcontext(job.settings) as settings:
            stats, clock = RunStats(), Clock()
            began = clock.now()
            outcome, why_old = anyio.run(
                _run, job, settings, options, stats, clock, observer, stop, backend_options=LOOP_OPTIONS
            )
            outcome = run_outcome([*outcome.endings, *observer.endings()])
        guarantees = job_guarantees(job, settings, clock.now())
        as_of = clock.now() if not why_old else _changed_at(job.directory / "results.jsonl")
        summary, issues = close_run(job, options, outcome, stats, clock.now() - began, guarantees, as_of)
        if why_old:
            what = "was not written" if as_of is None else f"is as of {iso_timestamp(as_of)}"
            observer.warn(f"results.jsonl {what}: {why_old}; now: {issues.command('export')} > FILE")
        in_hurry = any(ending.exit in SIGNALS.values() for ending in outcome.endings)
        write_page(job, clock, issues.unit, observer, in_hurry=in_hurry)
        return summary, issues


def _changed_at(path: Path) -> float | None:
    """Return when a file was written, in seconds since the epoch, or None if there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _refuse_lost_state(job: LoadedJob) -> None:
    """Raise StateError if there are results but no state: the state was deleted, and a run would buy all again."""
    results_file = job.directory / "results.jsonl"
    known = any((job.state_directory / name).exists() for name in ("state.db", "journal.jsonl"))
    if results_file.exists() and not known:
        raise StateError(
            f"{results_file} is here, but the job's state ({job.state_directory}) is gone",
            hint="Put the state back; or, to buy everything anew, move the results away or choose --out.",
        )


async def _run(
    job: LoadedJob,
    settings: Settings,
    options: RunOptions,
    stats: RunStats,
    clock: Clock,
    observer: Observer,
    stop: StopSwitch | None,
) -> tuple[RunOutcome, str]:
    """Open the run's resources, register the run, requeue what was asked for, and work until the run ends.

    Return how it ended, and why results.jsonl does not show that, or an empty string.
    """
    async with AsyncExitStack() as stack:
        context = await open_context(job, settings, options, observer, stack, stats, clock)
        store, registries, entry = context.store, context.registries, None
        earlier = EarlierPurchases()
        now, name = clock.now(), job.manifest.name
        directory = str(await anyio.to_thread.run_sync(job.directory.resolve))
        checked = await check_binding(store, job.state_directory, directory, registries, now)
        lease = open_lease(settings, store, directory, clock.now)
        fence = Fence(checked.fence)
        if not fence.why and lease is not None:
            expected = checked.known is not None and checked.known.lease == lease.place
            fence = await lease.compare(expected=expected, mode=options.lease, on_warning=observer.warn)
        if options.buy_again:
            fence = Fence()

        def raise_fence(fence: Fence) -> None:
            observer.warn(f"{fence.why}; {ADOPT_HINT}" if fence.kind == "state" else fence.why)
            for pipeline in context.pipelines:
                pipeline.session.raise_fence(fence.why, fence.kind)

        if fence.why:
            raise_fence(fence)
            options = replace(options, failed=False)
        if options.may_buy:
            registered = await register_run(
                registries,
                store,
                name=name,
                directory=directory,
                now=now,
                buy_again=options.buy_again,
                fenced=bool(fence.why),
            )
            if not fence.why:
                entry = registered
                find_lost = watch_registers(registries)

                def may_claim() -> bool:
                    if lost := find_lost():
                        raise_fence(Fence(lost))
                    return not lost

                for pipeline in context.pipelines:
                    pipeline.session.may_claim = may_claim
                place = "" if lease is None else lease.place
                await bind_state(job.state_directory, directory, registries, now, lease=place)
                await stack.enter_async_context(record_while_running(registries, store, observer.warn))
                if lease is not None:
                    held = lease.held(mode=options.lease, raise_fence=raise_fence, on_warning=observer.warn)
                    await stack.enter_async_context(held)
                await begin_remembering(context, directory, now)
                if context.has_new_tasks:
                    await adopt_all_remembered(context, job.state_directory)
                await stack.enter_async_context(remember_while_running(context.memories, observer.warn))
                earlier = await use_earlier_purchases(context, options, Path(directory), job.manifest.retry.remember)
        await _requeue(context, options, job.directory)
        enqueuer = None if fence.why else context.enqueuer
        await start_stats(context, stats, job.summary.by_provider if enqueuer is not None else {})
        limits = job.manifest.limits
        ends = [seconds_until(each, clock.now()) for each in (options.until, limits.end) if each is not None]
        deadlines = [each for each in (options.deadline, limits.deadline) if each is not None]
        run = Run(
            context.pipelines,
            store=store,
            directory=job.directory,
            clock=clock,
            notifier=context.notifier,
            deadline=min(deadlines, default=None),
            end=min(ends, default=None),
            on_bug=observer.report_bug,
            signals=stop is None,
            stages=EVERY_STAGE if options.failed else _STAGES[options.verb],
            unfinished=EVERY_STAGE if options.verb == "reconcile" else None,
            enqueue=None if enqueuer is None else partial(enqueuer.run, context, earlier),
        )
        writer = ResultsWriter(store, job.directory, job.state_directory, clock.monotonic)
        async with (
            show_run_progress(job, settings, context, run, stats, options),
            writer.writing_at_intervals(observer),
        ):
            with nullcontext() if stop is None else stop.attached(run):
                outcome = await _run_to_end(run, context, job, settings)
        added = () if enqueuer is None else enqueuer.endings
        outcome = run_outcome([*earlier.endings(), *added, *outcome.endings])
        if entry is not None and outcome.exit in {Exit.DONE, Exit.FAILED}:
            await mark_finished(registries, entry)
        if not run.stopping:
            await finish_merged_rows(job, store, observer.warn)
        return outcome, await writer.finish(in_hurry=run.stopping)


async def _run_to_end(run: Run, context: RunContext, job: LoadedJob, settings: Settings) -> RunOutcome:
    """Work until the run ends. If its state was removed meanwhile, rescue the journal, and raise StateError."""
    failure: RunnerError | None = None
    try:
        outcome = await run.run()
    except RunnerError as error:
        failure = error
    if not await context.store.is_in_place():
        places = [job.directory, settings.home, Path(tempfile.gettempdir())]
        try:
            raise await rescue_journal(context.store, job.state_directory, places)
        except OSError:
            for task in await context.store.in_state(State.RUNNING):
                context.observer.write_last_resort(task, Accepted(task.remote_id or ""))
            raise StateError(
                f"{job.state_directory} was removed while the job ran: the ids that were running are on stderr",
                hint="Put a backup back, and enter them: `runner resolve KEY --adopt ID`.",
            ) from failure
    if failure is not None:
        raise failure
    return outcome


async def _requeue(context: RunContext, options: RunOptions, directory: Path) -> None:
    """Requeue the tasks that the user asked for again: stranded, failed, or with missing or changed files."""
    by_name = {pipeline.name: pipeline for pipeline in context.pipelines}
    for task in await _tasks_to_requeue(context.store, options, directory, context.clock.now()):
        if task.provider in by_name:
            # a file that is missing here is looked for as long as ever; what was stranded, once more
            event = Retried(is_brief=options.verb == "run" and task.state is State.STRANDED)
            after = advance(task, event, context.clock.now(), by_name[task.provider].settlement.policy)
            await context.store.settle(task, after)


async def _tasks_to_requeue(store: Store, options: RunOptions, directory: Path, now: float) -> list[Task]:
    """Return the tasks to requeue. A run takes up what was stranded because its files were not served.

    Raises UsageError if tasks are lost, and none for the reason that was named.
    """
    if options.verb in {"run", "verify"}:
        find_keys = keys_of_broken_files if options.verb == "verify" else keys_of_missing_files
        keys = await anyio.to_thread.run_sync(find_keys, directory)
        found = [task for key in keys for task in await store.find_by_key_prefix(key)]
        return found if options.verb == "verify" else [*found, *await store.unserved(now - FILES_LIVE, MOST_UNSERVED)]
    states = (State.STRANDED, *([State.FAILED] if options.failed else [])) if options.verb == "retry" else ()
    lost = [task for state in states for task in await store.in_state(state)]
    chosen = [task for task in lost if _matches_reason(task.error.reason, options.reason)]
    if lost and options.reason is not None and not chosen:
        reasons = ", ".join(sorted({task.error.reason or "unknown" for task in lost}))
        raise UsageError(
            f"nothing is lost for the reason {options.reason!r}", hint=f"What is lost is so for: {reasons}."
        )
    return chosen


def _matches_reason(reason: str | None, wanted: str | None) -> bool:
    """Return True if a lost task is to be requeued.

    Tasks that the user abandoned need that very reason.
    """
    return reason == wanted if wanted is not None else reason != "abandoned"


#: seconds that thumbnails may take at the end of a run, and bytes of files that need none
_THUMBNAIL_SECONDS, _LIGHT_BYTES = 2.0, 32 << 20
#: most tasks of a job whose page is written after a signal, which takes about 50 µs for each
_PAGE_TASKS_IN_HURRY = 2_000


def job_guarantees(job: LoadedJob, settings: Settings, now: float) -> list[dict[str, Any]]:
    """Return the guarantee class of each operation and model that the job has tasks of, as JSON objects.

    `settings` are those of the run: they lead to the accounts that it used. `now` is in seconds since the epoch.
    """
    with open_read_only(job.state_directory) as queries:
        operations = queries.operations()
    known = spec_paths(settings.providers)
    names = sorted({provider for provider, _, _ in operations} & known.keys())
    accounts = known_accounts([load(name, settings.providers) for name in names], settings)
    found = dict.fromkeys(
        (provider, accounts[provider].guarantee(operation, model, now))
        for provider, operation, model in operations
        if provider in accounts and operation in accounts[provider].spec.operations
    )
    return [guarantee_dict(each, provider, now) for provider, each in found]


def close_run(
    job: LoadedJob,
    options: RunOptions,
    outcome: RunOutcome,
    stats: RunStats,
    seconds: float,
    guarantees: Sequence[Mapping[str, Any]] = (),
    as_of: float | None = None,
) -> tuple[dict[str, Any], JobIssues]:
    """Return the summary of a run of `seconds`, with the issues that it left.

    `as_of` is the time that results.jsonl shows, in seconds since the epoch, or None if there is none yet.
    """
    with open_read_only(job.state_directory) as queries:
        endings = [(int(ending.exit), ending.why) for ending in outcome.endings]
        found = job_issues(queries, job.settings, _command_words(job, options), endings)
        report = summary(
            job.manifest.name,
            exit_code=int(outcome.exit),
            reasons=[why for _, why in endings],
            counts=queries.counts(),
            stats=stats,
            in_doubt=[task["key"] for task in (*queries.in_state("in_doubt"), *found.held)],
            seconds=seconds,
            issues=found,
            guarantees=guarantees,
            results_as_of=as_of,
        )
        return report, found


def write_page(job: LoadedJob, clock: Clock, unit: str, observer: Observer, *, in_hurry: bool) -> None:
    """Write the job's page.

    A failure is logged and stops nothing, because the run itself has ended.
    Thumbnails take two seconds at most, and none are made in a hurry. `runner gallery` makes the rest, and in a hurry
    the page of a large job too.
    """
    end = clock.now() + (0.0 if in_hurry else _THUMBNAIL_SECONDS)
    try:
        from runner.app.gallery_files import write_gallery  # noqa: PLC0415 - `status` has no need of it

        if in_hurry and _task_count(job) > _PAGE_TASKS_IN_HURRY:
            observer.info("the page of the job is as it was: there was no time; `runner gallery` makes it")
            return
        write_gallery(
            job.directory, now=clock.now(), unit=unit, has_time=lambda: clock.now() < end, light_bytes=_LIGHT_BYTES
        )
    except (OSError, RunnerError) as error:
        observer.warn(f"the page of the job was not written: {error}")
    except KeyboardInterrupt:
        observer.warn("the page of the job was not written: interrupted; `runner gallery` makes it")
    except Exception as error:  # noqa: BLE001 - a bug in a page must not cost a run its summary; it is logged
        observer.report_bug(error)


def _task_count(job: LoadedJob) -> int:
    with open_read_only(job.state_directory) as queries:
        return sum(queries.counts().values())


def _command_words(job: LoadedJob, options: RunOptions) -> list[str]:
    """Return the command-line arguments that name this job: the manifest, `--sandbox` and `--out`."""
    out = ["--out", str(options.out)] if options.out else []
    return ["MANIFEST" if job.locate else job.manifest.file, *(["--sandbox"] if job.in_sandbox else []), *out]


#: seconds between two updates of the progress view
_PROGRESS_INTERVAL = 0.25
#: seconds between two checks whether submits wait
_WAITS_INTERVAL = 2.0
#: seconds between two updates of the metrics file
_METRICS_INTERVAL = 60.0


async def start_stats(context: RunContext, stats: RunStats, expected: Mapping[str, int]) -> None:
    """Fill the run's stats with the counts and costs in the store.

    `expected` is the number of tasks by provider, where some are still to be added.
    """
    counts = await context.store.counts()
    counts["queued"] = counts.get("queued", 0) - await context.store.removed_unsent_count()
    names = [pipeline.name for pipeline in context.pipelines]
    by_provider = {names[0]: counts} if len(names) == 1 else await context.store.counts_by_provider()
    for name in names if len(names) > 1 else ():
        states = by_provider.setdefault(name, {})
        states["queued"] = states.get("queued", 0) + max(0, expected.get(name, 0) - sum(states.values()))
    stats.start(
        counts,
        context.clock.now(),
        by_provider={name: by_provider.get(name, {}) for name in names},
        cost_before=await context.store.spent(),
    )


@asynccontextmanager
async def show_run_progress(
    job: LoadedJob, settings: Settings, context: RunContext, run: Run, stats: RunStats, options: RunOptions
) -> AsyncIterator[None]:
    """Show the run's progress, and keep its metrics file up to date, during the block."""
    info, observer = await _run_info(job, settings, context), context.observer
    await anyio.to_thread.run_sync(_write_run_info, job, info, observer)
    with observer.show_progress(info, stats) as update:

        def update_view() -> None:
            stats.stopping, stats.waits = run.stopping, run.waits
            update(context.clock.now())

        updaters = [asyncio.create_task(_call_repeatedly(_PROGRESS_INTERVAL, update_view))]
        updaters.append(asyncio.create_task(_write_waits_repeatedly(job, info, run, observer)))
        if options.metrics_file is not None:
            updaters.append(asyncio.create_task(_write_metrics_repeatedly(options.metrics_file, job, stats, context)))
        try:
            yield
        finally:
            succeeded = await _stop_watchers(updaters, observer.report_bug)
        if succeeded:
            update_view()


async def _stop_watchers(updaters: Sequence[asyncio.Task[None]], on_bug: Callable[[Exception], None]) -> bool:
    """Cancel the background tasks and return True if none had failed.

    Their exceptions go to `on_bug`, because a bug in a view must not cost a run its summary.
    """
    for updater in updaters:
        updater.cancel()
    await asyncio.wait(updaters)
    bugs = [bug for each in updaters if not each.cancelled() and isinstance(bug := each.exception(), Exception)]
    for bug in bugs:
        on_bug(bug)
    return not bugs


async def _write_waits_repeatedly(job: LoadedJob, info: RunInfo, run: Run, observer: Observer) -> None:
    """Write why submits wait whenever that changes, for other processes that show the run, until cancelled."""
    while True:
        if run.waits != info.waits:
            info = replace(info, waits=run.waits)
            await anyio.to_thread.run_sync(_write_run_info, job, info, observer)
        await anyio.sleep(_WAITS_INTERVAL)


def _write_run_info(job: LoadedJob, info: RunInfo, observer: Observer) -> None:
    """Write what the live page shows of this run.

    A failure to do so is logged and stops nothing.
    """
    try:
        write_run_info(job.state_directory, info)
    except OSError as error:
        observer.warn(f"the live page will not know this run's limits: {error}")


async def _run_info(job: LoadedJob, settings: Settings, context: RunContext) -> RunInfo:
    """Return the run's cap, units and limits.

    The units include those of providers whose tasks are all finished.
    """
    caps = {pipeline.spending.max_cost for pipeline in context.pipelines}
    specs = [pipeline.session.spec for pipeline in context.pipelines]
    known = spec_paths(settings.providers)
    every = [
        load(name, settings.providers)
        for name in await context.store.providers_with_work(include_finished=True)
        if name in known
    ]
    return RunInfo(
        job.manifest.name,
        units={spec.name: spec.unit for spec in (*every, *specs)},
        max_cost=caps.pop() if len(caps) == 1 else None,
        limits={spec.name: _submits_per_second(spec, job, settings) for spec in specs},
    )


def _submits_per_second(spec: Spec, job: LoadedJob, settings: Settings) -> float:
    """Return the provider's submit limit in submits a second."""
    loopback = provider_config.is_on_loopback(provider_config.base_url(spec, settings))
    return provider_config.endpoint_rates(spec, job.manifest, loopback=loopback)["submit"].per_second


async def _call_repeatedly(seconds: float, update: Callable[[], None]) -> None:
    """Call a function at intervals until cancelled."""
    while True:
        update()
        await anyio.sleep(seconds)


async def _write_metrics_repeatedly(path: Path, job: LoadedJob, stats: RunStats, context: RunContext) -> None:
    """Write the metrics file at intervals until cancelled, because long runs are monitored before they end."""
    while True:
        totals = {"submitted": stats.submitted, "adopted": stats.adopted, "downloaded": stats.downloaded}
        await anyio.to_thread.run_sync(write_metrics, path, job, context.observer, context.clock.now(), totals)
        await anyio.sleep(_METRICS_INTERVAL)


def write_metrics(
    path: Path,
    job: LoadedJob,
    observer: Observer,
    now: float,
    totals: Mapping[str, Any],
    exit_code: int | None = None,
) -> None:
    """Write the metrics file.

    A failure to do so is logged and stops nothing.
    `now` is in seconds since the epoch, `totals` are the run's counters by name. `exit_code` is None during the run.
    """
    counts: dict[str, int] = {}
    cost, ready = None, None
    try:
        with suppress(JobNotFoundError), open_read_only(job.state_directory) as queries:
            counts, cost, ready = queries.counts(), queries.spent(), queries.oldest_ready_at()
        sample = JobMetrics(
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
        observer.warn(f"--metrics-file: {error}")
