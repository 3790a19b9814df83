"""The public interface: load, plan, run, resolve. The command line is written on it.

Nothing here prints, handles signals or changes global state. Several jobs may run at once, in one event loop or in
several threads.

What a run needs, such as asyncio and the network's libraries, is imported by the functions that need it: that takes as
long as all the rest, and 5 MB, and to load and plan a manifest must start fast.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from runner.app.job import LoadedJob, load_values
from runner.app.job import load as load_manifest
from runner.app.plan_job import PlanBuilder
from runner.app.planned_links import PlannedLinks
from runner.app.run_events import Progress, RunEvent, TaskChanged, Warned
from runner.app.stored_job import OutputFile, StoredJob, TaskResult
from runner.errors import MAX_SHOWN, Diagnostic, ManifestError, RunnerError, UsageError
from runner.report.summary import JobIssues, render
from runner.settings import Settings
from runner.store.read_only import open_read_only
from runner.tasks.events import Resolved
from runner.tasks.models import TaskError
from runner.units import TimeOfDay, parse_duration, parse_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from os import PathLike

    from runner.app.event_observer import Listener
    from runner.app.observer import Observer, StopSwitch
    from runner.app.run_context import RunOptions
    from runner.manifest.expand import DraftCallback
    from runner.tasks.events import Resolution

    StrPath = str | PathLike[str]
    #: seconds, or text such as `6h` or `1h30m`
    Duration = float | str

__all__ = [
    "Diagnostic",
    "Job",
    "ManifestError",
    "OutputFile",
    "Plan",
    "PlannedTask",
    "Progress",
    "RunEvent",
    "RunResult",
    "RunnerError",
    "StoredJob",
    "TaskChanged",
    "TaskError",
    "TaskResult",
    "Warned",
    "arun",
    "load",
    "open_job",
    "plan",
    "resolve",
    "run",
]

#: what a run does: everything; fetch what is stranded, and with `failed` buy what failed again; look up what is in
#: doubt; hash the files and fetch those that are missing or changed
RunVerb = Literal["run", "retry", "reconcile", "verify"]
#: what becomes of tasks that another job of the account has bought
Elsewhere = Literal["link", "ignore"]
#: words of hints for the command line, and what a Python user writes instead
_PYTHON_WORDS = (
    ("add --buy-again", "give buy_again=True"),
    ("--buy-again", "buy_again=True"),
    ("add --same-account", "give same_account=True"),
    ("use --wait-lock 10m", "give wait_lock=600"),
    ("choose --out", "give out"),
    ("with --out", "with out"),
    ("`runner plan`", "runner.plan(job)"),
    ("`runner resolve`", "runner.resolve(job, key, …)"),
    ("`runner status`", "runner.open_job(directory)"),
    ("`runner run MANIFEST`", "runner.run(job)"),
)
#: most sample requests of a plan
_MAX_SAMPLES = 3


class Job:
    """A checked manifest. `load` makes one of a file, this class one of Python values.

    Values are given by the keys of a manifest, as one mapping, as keyword arguments, or as both. `items` may be any
    iterable of mappings, such as a generator or the records of a data frame; it is read once. As in a file, texts of
    `params` and `output.name` are templates, and those of `items` are data. Relative paths start at the current
    directory.

    `out` sets the job directory. With `sandbox` the job runs in the embedded sandbox, in a directory of its own, and
    nothing is paid. `env` takes the place of the environment, which holds credentials and settings. Raises
    ManifestError, whose diagnostics name the path of each value, such as `items[3].subject`.
    """

    def __init__(
        self,
        values: Mapping[str, Any] | None = None,
        /,
        *,
        out: StrPath | None = None,
        sandbox: bool = False,
        env: Mapping[str, str] | None = None,
        **keys: Any,
    ) -> None:
        if values is not None and not hasattr(values, "keys"):
            raise UsageError(
                f"expected a mapping of a manifest's keys, found {type(values).__name__!r}",
                hint="A file is loaded by runner.load(path).",
            )
        self.out = _path_or_none(out)
        #: what the command line works with; no part of the interface
        self.loaded = load_values({**(values or {}), **keys}, _settings(env), out=self.out, in_sandbox=sandbox)

    @classmethod
    def _of(cls, loaded: LoadedJob, out: Path | None) -> Self:
        job = cls.__new__(cls)
        job.loaded, job.out = loaded, out
        return job

    def __repr__(self) -> str:
        return f"<Job {self.name!r}: {self.task_count} tasks in {self.directory}>"

    @property
    def name(self) -> str:
        """Return the name of the job."""
        return self.loaded.manifest.name

    @property
    def directory(self) -> Path:
        """Return the job directory, which receives the outputs."""
        return self.loaded.directory

    @property
    def task_count(self) -> int:
        """Return the number of tasks."""
        return self.loaded.summary.tasks

    @property
    def merged_count(self) -> int:
        """Return the number of tasks that were identical to an earlier one and merged with it."""
        return self.loaded.summary.merged

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """Return the warnings about the manifest."""
        return self.loaded.summary.warnings


def load(
    path: StrPath, *, out: StrPath | None = None, sandbox: bool = False, env: Mapping[str, str] | None = None
) -> Job:
    """Read and check a manifest. Nothing is sent or written.

    The options are those of `Job`. Raises ManifestError, whose `diagnostics` have file, line, column, message and hint.
    """
    return load_checked(path, out=out, sandbox=sandbox, env=env)


def load_checked(
    path: StrPath,
    *,
    out: StrPath | None = None,
    sandbox: bool = False,
    env: Mapping[str, str] | None = None,
    on_draft: DraftCallback | None = None,
    on_progress: Callable[[int], None] | None = None,
    has_cost_cap: bool = False,
) -> Job:
    """Load a manifest as `load` does, and check prices if `has_cost_cap`.

    Call `on_draft` with every draft, and `on_progress` with the number of tasks that were checked, now and then.
    """
    directory = _path_or_none(out)
    loaded = load_manifest(
        Path(path), _settings(env), out=directory, in_sandbox=sandbox, on_draft=on_draft, on_progress=on_progress,
        has_cost_cap=has_cost_cap,
    )  # fmt: skip
    return Job._of(loaded, directory)  # noqa: SLF001 - the constructor is for Python values


# planning


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """A task as a plan has it."""

    key: str
    name: str
    #: `new`, `kept`, `changed` (new, and replaces an older task), `gone` (no longer in the manifest), `linked` (another
    #: job has bought it, nothing is to pay) or `resting` (another job is at work on it)
    plan: str
    #: state of the task in the job; None: it has none yet
    state: str | None
    #: position in the manifest, from 1; None: it is gone
    index: int | None = None
    #: key and state of the task that a changed one replaces, and the names of the fields that differ
    was: str | None = None
    was_state: str | None = None
    fields: tuple[str, ...] = ()


class Plan:
    """What a run would do: the difference between a manifest and the tasks that its job has already."""

    def __init__(self, job: Job, builder: PlanBuilder) -> None:
        self.job = job
        self._builder = builder

    def __repr__(self) -> str:
        return f"<Plan of {self.job.name!r}: {self.new} new, {sum(self.kept.values())} kept, cost {self.cost}>"

    @property
    def new(self) -> int:
        """Return the number of tasks that would be bought."""
        return self._builder.new

    @property
    def kept(self) -> Mapping[str, int]:
        """Return the number of tasks that the job has already, by state."""
        return dict(self._builder.kept)

    def restated(self) -> list[str]:
        """Return a line for each reason why tasks are kept that are written in another way than they were bought."""
        return self._builder.restated.render()

    @property
    def replaced(self) -> int:
        """Return how many new tasks stand where bought ones stood, in the same row of the table."""
        return len(self._builder.replaced)

    @property
    def cost(self) -> float | None:
        """Return the price of the new tasks, or None if one is unknown or they are in several units."""
        return self._builder.cost

    @property
    def linked(self) -> int:
        """Return the number of tasks that another job of the account has bought before, so that nothing is to pay."""
        return self._builder.links.linked.total() if self._builder.links else 0

    @property
    def unit(self) -> str:
        """Return the unit of the cost, or an empty string if there is no cost."""
        return self._builder.unit

    def tasks(self) -> Iterator[PlannedTask]:
        """Yield every task, in order, and at the end those that have left the manifest."""
        found: list[dict[str, Any]] = []
        builder = _plan_builder(self.job, 0, on_task=found.append)
        for draft in self.job.loaded.drafts():
            builder.add(self.job.loaded.parsed, draft)
            yield from (_planned_task(each) for each in found)
            found.clear()
        builder.finish()
        yield from (_planned_task(each) for each in found)

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `runner plan --json` prints, without the warnings."""
        return self._builder.to_dict(self.job.loaded)


def plan(job: Job) -> Plan:
    """Compare a job with the tasks that it has already. Nothing is sent or written."""
    _check_job(job)
    builder = _plan_builder(job, _MAX_SAMPLES)
    for draft in job.loaded.drafts():
        builder.add(job.loaded.parsed, draft)
    builder.finish()
    return Plan(job, builder)


def load_and_plan(
    path: StrPath,
    *,
    out: StrPath | None = None,
    sandbox: bool = False,
    env: Mapping[str, str] | None = None,
    on_task: Callable[[dict[str, Any]], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
    include_failed: bool = False,
    has_cost_cap: bool = False,
    buy_again: bool = False,
    elsewhere: Elsewhere = "link",
) -> Plan:
    """Load and plan in one pass over the manifest.

    Call `on_task` with the JSON object of every task, and `on_progress` with their number now and then.

    With `include_failed`, tasks that failed count as new; with `buy_again` or `elsewhere` as in `run`, what other jobs
    of the account have bought.
    """
    directory, settings = _path_or_none(out), _settings(env)
    builder = PlanBuilder(
        _MAX_SAMPLES,
        directory,
        sandbox,
        settings.providers,
        on_task=on_task,
        include_failed=include_failed,
        buy_again=buy_again,
        links=None if buy_again or elsewhere == "ignore" else PlannedLinks(settings, sandbox),
    )
    job = load_checked(
        path, out=directory, sandbox=sandbox, env=env, on_draft=builder.add, on_progress=on_progress,
        has_cost_cap=has_cost_cap,
    )  # fmt: skip
    builder.finish()
    return Plan(job, builder)


def _plan_builder(job: Job, samples: int, on_task: Callable[[dict[str, Any]], None] | None = None) -> PlanBuilder:
    # the directory is final already, so nothing is to be derived from `sandbox`
    settings, in_sandbox = job.loaded.settings, job.loaded.in_sandbox
    links = PlannedLinks(settings, in_sandbox)
    return PlanBuilder(samples, job.directory, in_sandbox, settings.providers, on_task=on_task, links=links)


def _planned_task(task: Mapping[str, Any]) -> PlannedTask:
    return PlannedTask(**{**task, "fields": tuple(task.get("fields", ()))})


# results


class RunResult:
    """How a run ended. `summary` is the object that `runner run --json` prints."""

    def __init__(self, job: Job, summary: Mapping[str, Any], issues: JobIssues, unsaved: Sequence[str] = ()) -> None:
        self.job = job
        self.summary = dict(summary)
        #: paid ids that could not be stored, each with what `resolve` needs; usually none
        self.unsaved = tuple(unsaved)
        self._issues = issues

    def __repr__(self) -> str:
        return f"<RunResult of {self.job.name!r}: exit code {self.exit_code}, {self.counts}>"

    @property
    def exit_code(self) -> int:
        """Return the exit code of the command line; 0: everything is done."""
        code: int = self.summary["exit_code"]
        return code

    @property
    def reasons(self) -> list[str]:
        """Return why the exit code is not 0, the weightiest reason first."""
        return list(self.summary["reasons"])

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of tasks by state at the end of the run."""
        return dict(self.summary["counts"])

    @property
    def directory(self) -> Path:
        """Return the job directory."""
        return self.job.directory

    def tasks(self, state: str | None = None) -> Iterator[TaskResult]:
        """Yield the tasks of the job in manifest order, as they are now, or only those in a state."""
        return StoredJob(self.directory).tasks(state)

    def describe(self) -> str:
        """Return the text that the command line prints at the end of a run."""
        return render(self.summary, self._issues, str(self.directory))


def open_job(directory: StrPath) -> StoredJob:
    """Open a job directory for reading, without its manifest. Raises JobNotFoundError or StateError."""
    path = Path(directory)
    with open_read_only(path / ".runner"):
        return StoredJob(path)


# running


def run(
    job: Job,
    *,
    max_cost: float | None = None,
    deadline: Duration | None = None,
    until: Duration | None = None,
    on_event: Callable[[RunEvent], object] | None = None,
    verb: RunVerb = "run",
    failed: bool = False,
    reason: str | None = None,
    wait_lock: Duration = 0.0,
    same_account: bool = False,
    buy_again: bool | Sequence[str] = False,
    elsewhere: Elsewhere = "link",
    changes: int | None = None,
    trust_less: bool = False,
    metrics_file: StrPath | None = None,
) -> RunResult:
    """Run a job to its end, and return how it ended.

    The same call again resumes the job; with nothing new it submits nothing.

    The options are those of `runner run`: `max_cost` pauses the job before it costs more, `deadline` stops submits
    after that time, `until` (a duration, or a time such as "06:30") ends the run and leaves the rest to the next one,
    `wait_lock` waits for another run of the job. If more than `changes` new tasks stand where bought ones stood,
    nothing is bought and UsageError is raised; None allows any number. `verb` chooses what is done; `failed` and
    `reason` are for "retry". What other jobs of the account have bought before is linked, unless `elsewhere` is
    "ignore"; `buy_again` buys it anew, all or the tasks with these keys. `on_event` is called in this thread with every
    TaskChanged, Progress and Warned. If it raises, the run goes on and its exit code is 1.

    KeyboardInterrupt stops submits and is raised when those on the wire have delivered their ids, 30 seconds at most.
    Raises RunnerError if the run cannot begin, or if the store or the disk gives up.
    """
    import asyncio  # noqa: PLC0415 - see the top

    from runner.app.event_observer import Listener  # noqa: PLC0415
    from runner.app.run_thread import wait_in_thread  # noqa: PLC0415

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise UsageError(
            "an event loop is running here, which run() would block", hint="Use: await runner.arun(job, …)"
        )
    _check_listener(on_event)
    options = _run_options(
        job, verb, failed=failed, reason=reason, max_cost=max_cost, deadline=deadline, until=until,
        wait_lock=wait_lock, same_account=same_account, buy_again=buy_again, elsewhere=elsewhere, changes=changes,
        trust_less=trust_less,
        metrics_file=metrics_file,
    )  # fmt: skip
    return wait_in_thread(f"runner {job.name}", lambda stop, post: _run(job, options, Listener(on_event, post), stop))


async def arun(
    job: Job,
    *,
    max_cost: float | None = None,
    deadline: Duration | None = None,
    until: Duration | None = None,
    on_event: Callable[[RunEvent], object] | None = None,
    verb: RunVerb = "run",
    failed: bool = False,
    reason: str | None = None,
    wait_lock: Duration = 0.0,
    same_account: bool = False,
    buy_again: bool | Sequence[str] = False,
    elsewhere: Elsewhere = "link",
    changes: int | None = None,
    trust_less: bool = False,
    metrics_file: StrPath | None = None,
) -> RunResult:
    """Run a job as `run` does, from a running event loop of asyncio, such as that of a notebook or a service.

    `on_event` is called in this loop. A cancellation stops submits and is raised when those on the wire have delivered
    their ids, 30 seconds at most.
    """
    from runner.app.event_observer import Listener  # noqa: PLC0415 - see the top
    from runner.app.run_thread import await_in_thread  # noqa: PLC0415

    _check_listener(on_event)
    options = _run_options(
        job, verb, failed=failed, reason=reason, max_cost=max_cost, deadline=deadline, until=until,
        wait_lock=wait_lock, same_account=same_account, buy_again=buy_again, elsewhere=elsewhere, changes=changes,
        trust_less=trust_less,
        metrics_file=metrics_file,
    )  # fmt: skip
    return await await_in_thread(
        f"runner {job.name}", lambda stop, post: _run(job, options, Listener(on_event, post), stop)
    )


def run_attached(
    job: Job, options: RunOptions, observer: Observer, *, on_end: Callable[[RunResult], None]
) -> RunResult:
    """Run a job in this thread, which must be the main one: the run drains on INT, TERM and HUP.

    `on_end` is called with the result before the monitor of `notify:` is told.
    """
    from runner.app.notify import notify_around  # noqa: PLC0415 - see the top
    from runner.app.run_job import execute  # noqa: PLC0415

    with notify_around(job.loaded, options, observer) as notify_end:
        result = RunResult(job, *execute(job.loaded, options, observer))
        on_end(result)
        notify_end(result.summary)
    return result


def _run(job: Job, options: RunOptions, listener: Listener, stop: StopSwitch) -> RunResult:
    """Run a job in this thread without signal handlers."""
    from runner.app.event_observer import EventObserver  # noqa: PLC0415 - see the top
    from runner.app.notify import notify_around  # noqa: PLC0415
    from runner.app.run_job import execute  # noqa: PLC0415

    observer = EventObserver(job.name, listener)
    for warning in job.warnings[:MAX_SHOWN]:
        observer.warn(str(warning))
    try:
        with notify_around(job.loaded, options, observer) as notify_end:
            summary, issues = execute(job.loaded, options, observer, stop=stop)
            notify_end(summary)
    except Exception as error:
        if isinstance(error, RunnerError):
            error.hint = python_hint(error.hint)
        for text in observer.unsaved:
            error.add_note(text)
        raise
    return RunResult(job, summary, issues, observer.unsaved)


def python_hint(hint: str) -> str:
    """Return a hint that names the arguments and functions of this interface where it named the command line's."""
    for words, call in _PYTHON_WORDS:
        hint = hint.replace(words, call)
    return hint


def _run_options(
    job: Job,
    verb: RunVerb,
    *,
    failed: bool,
    reason: str | None,
    max_cost: float | None,
    deadline: Duration | None,
    until: Duration | None,
    wait_lock: Duration,
    same_account: bool,
    buy_again: bool | Sequence[str],
    elsewhere: Elsewhere,
    changes: int | None,
    trust_less: bool,
    metrics_file: StrPath | None,
) -> RunOptions:
    """Return the options of a run. Raises UsageError if they make no sense, ManifestError if a cap needs prices."""
    from runner.app.run_context import RunOptions  # noqa: PLC0415 - see the top

    _check_job(job)
    if verb not in get_args(RunVerb):
        raise UsageError(f"verb: there is no {verb!r}", hint=f"One of {', '.join(get_args(RunVerb))}.")
    if isinstance(buy_again, str) or not isinstance(buy_again, bool | Sequence):
        raise UsageError("buy_again: expected True or a list of keys", hint='E.g. buy_again=["0bfde814"].')
    if elsewhere not in get_args(Elsewhere):
        raise UsageError(f"elsewhere: there is no {elsewhere!r}", hint=f"One of {', '.join(get_args(Elsewhere))}.")
    if (failed or reason is not None) and verb != "retry":
        raise UsageError("failed and reason choose what to retry", hint='Use them with verb="retry".')
    if max_cost is not None:
        if not isinstance(max_cost, int | float) or not max_cost >= 0:
            raise UsageError(f"max_cost: {max_cost!r} is no amount", hint="A number from 0, in the provider's unit.")
        job.loaded.check_cost_cap("max_cost")
    return RunOptions(
        deadline=None if deadline is None else _seconds(deadline, "deadline"),
        until=None if until is None else _end(until),
        wait_lock=_seconds(wait_lock, "wait_lock"),
        verb=verb,
        out=job.out,
        failed=failed,
        reason=reason,
        same_account=same_account,
        again=verb == "retry",
        max_cost=max_cost,
        buy_again=buy_again is True,
        buy_again_keys=() if isinstance(buy_again, bool) else tuple(buy_again),
        elsewhere=elsewhere,
        changes=changes,
        trust_less=trust_less,
        metrics_file=_path_or_none(metrics_file),
    )


# deciding


def resolve(
    job: Job | StoredJob | StrPath,
    key: str,
    *,
    adopt: str | None = None,
    absent: bool = False,
    abandon: bool = False,
    by: str | None = None,
    env: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Record a decision on a task that is held or in doubt, whose `key` may be shortened. The next run acts on it.

    `adopt` is its id at the provider; `absent` says that it was never accepted, so that it is bought again; `abandon`
    gives it up. `job` may be a job directory. `by` names who decides, by default the user of the process. Returns the
    object that `runner resolve --json` prints. Raises UsageError or StateError.
    """
    import getpass  # noqa: PLC0415 - see the top

    from runner.app.resolve import resolve_task  # noqa: PLC0415
    from runner.app.run_thread import call_beside_loop  # noqa: PLC0415

    if sum((adopt is not None, absent, abandon)) != 1:
        raise UsageError("one decision is needed", hint="Give one of adopt=ID, absent=True or abandon=True.")
    decision: Resolution = "adopt" if adopt is not None else "absent" if absent else "abandon"
    event = Resolved(decision, by or getpass.getuser(), adopt)
    directory = job.directory if isinstance(job, Job | StoredJob) else Path(job)
    settings = job.loaded.settings if isinstance(job, Job) and env is None else _settings(env)
    return call_beside_loop(lambda: resolve_task(directory, key, event, settings))


def _check_job(job: object) -> None:
    if not isinstance(job, Job):
        raise UsageError(
            f"expected a job, found {type(job).__name__!r}", hint="Make one of a manifest: runner.load(path)."
        )


def _check_listener(on_event: object) -> None:
    import inspect  # noqa: PLC0415 - see the top

    if on_event is not None and (not callable(on_event) or inspect.iscoroutinefunction(on_event)):
        raise UsageError("on_event must be a function that is called with each event", hint="It may not be async.")


def _settings(env: Mapping[str, str] | None) -> Settings:
    return Settings(os.environ if env is None else env)


def _path_or_none(path: StrPath | None) -> Path | None:
    return None if path is None else Path(path)


def _end(until: Duration) -> float | TimeOfDay:
    try:
        return parse_end(until)
    except ValueError as error:
        raise UsageError(f"until: {error}") from None


def _seconds(duration: Duration, name: str) -> float:
    try:
        return 0.0 if duration == 0 else parse_duration(duration)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None
