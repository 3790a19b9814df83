"""`adopt-state`: the user's decision that a copied or restored state is the one that goes on."""

from __future__ import annotations

from contextlib import AsyncExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from runner.app import provider_config
from runner.app.earlier_purchases import adopt_remembered
from runner.app.embedded_sandbox import ledger_path, sandbox_process
from runner.app.job_lease import open_lease
from runner.app.job_registry import adopt_entry, find_refusal
from runner.app.run_context import RunContext, RunOptions, open_context
from runner.app.state_binding import bind_state, check_binding
from runner.errors import RunnerError, StateError, UsageError
from runner.providers import spec as specs
from runner.report.results import iso_timestamp
from runner.scheduler.clock import Clock
from runner.scheduler.stage import Notifier
from runner.store.binding import read_binding, write_binding
from runner.store.lock import is_run_active, job_lock
from runner.store.purchases import PurchaseMemory
from runner.store.read_only import open_read_only
from runner.store.registry import Registry
from runner.store.store import Store
from runner.tasks.models import State
from runner.text import format_duration, pluralize

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from runner.app.job import LoadedJob
    from runner.app.observer import Observer
    from runner.app.state_binding import BindingCheck
    from runner.scheduler.pipeline import ProviderPipeline
    from runner.settings import Settings


@dataclass(frozen=True, slots=True)
class StateReport:
    """What differs between a state and the one that ran last, and what would be bought if it went on."""

    job: str
    directory: str
    #: one text for each difference; empty: this state is the one that ran last
    differences: tuple[str, ...]
    #: directory of the state that this one was copied from, if it is still there
    original: Path | None
    #: tasks that the next run buys, and that it may send again
    queued: int
    in_doubt: int
    #: when the latest request of this state was sent, seconds since the epoch; None: never
    last_sent_at: float | None
    #: tasks that the account's memory or the provider's list knew to be bought already, adopted just now
    adopted: int
    #: tasks to buy that look like tasks in a list that nobody has, or whose answer was lost: the next run looks them up
    put_in_doubt: int
    #: providers whose list cannot tell what was bought since, each with the reason
    not_asked: dict[str, str]
    now: float

    @property
    def is_clean(self) -> bool:
        """Return True if the original is gone and every provider's list was read, so that going on is safe."""
        return self.original is None and not self.not_asked

    def lines(self) -> list[str]:
        """Return what the user has to know before the decision."""
        last = "nothing was ever bought"
        if self.last_sent_at is not None:
            last = f"last purchase {format_duration(max(0.0, self.now - self.last_sent_at))} ago"
        found = [f"{self.job}: {'; '.join(self.differences)}"]
        found.append(f"{pluralize(self.queued, 'task')} would be bought, {self.in_doubt} in doubt; {last}")
        if self.adopted:
            found.append(f"{pluralize(self.adopted, 'task')} had been bought since: found, and adopted")
        if self.put_in_doubt:
            found.append(
                f"{pluralize(self.put_in_doubt, 'task')} may have been bought since: looked up by the next run"
            )
        found += [f"{name}: {reason}" for name, reason in self.not_asked.items()]
        if self.original is not None:
            found.append(f"{self.original} must not go on then, here or anywhere: both would buy the same")
        return found

    def to_dict(self, *, bound: bool) -> dict[str, Any]:
        """Return the object that `adopt-state --json` prints. `bound` says that the state may buy from now on."""
        return {
            "job": self.job,
            "directory": self.directory,
            "differences": list(self.differences),
            "original": None if self.original is None else str(self.original),
            "queued": self.queued,
            "in_doubt": self.in_doubt,
            "last_sent_at": None if self.last_sent_at is None else iso_timestamp(self.last_sent_at),
            "adopted": self.adopted,
            "put_in_doubt": self.put_in_doubt,
            "not_asked": self.not_asked,
            "bound": bound,
        }


@dataclass(frozen=True, slots=True)
class _Place:
    """The job whose state is adopted. Without its manifest no provider is asked."""

    name: str
    directory: Path
    job: LoadedJob | None = None

    @property
    def state(self) -> Path:
        return self.directory / ".runner"


def adopt_state(
    job: LoadedJob | Path, settings: Settings, observer: Observer, *, confirm: Callable[[StateReport], bool]
) -> dict[str, Any]:
    """Show how a state differs from the one that ran last, and make it the one that goes on if `confirm` says so.

    `job` may be a job directory. With a manifest the providers' lists are read, which is free of charge, and what they
    show to be bought already is adopted. Returns the object that `adopt-state --json` prints. Raises UsageError if the
    user declines, StateError if the original runs now, JobNotFoundError and other RunnerErrors.
    """
    directory = job if isinstance(job, Path) else job.directory
    with open_read_only(directory / ".runner") as queries:  # raises JobNotFoundError before anything is made
        place = _Place(queries.name(), directory, None if isinstance(job, Path) else job)
    in_sandbox: AbstractContextManager[Settings] = nullcontext(settings)
    if place.job is not None and place.job.in_sandbox:
        in_sandbox = sandbox_process(settings, ledger_path(place.state))
    with job_lock(place.state), in_sandbox as used:
        report = anyio.run(_inspect, place, used, observer)
        if not report.differences:
            return report.to_dict(bound=True)
        if report.original is not None and is_run_active(report.original / ".runner"):
            raise StateError(
                f"the original runs at this moment, in {report.original}",
                hint="Let it go on there. To go on here, end it first, and move it away.",
            )
        if not confirm(report):
            raise UsageError("nothing was changed", hint="The state still buys nothing; what is paid is fetched.")
        anyio.run(_bind, place, used, observer)
        if report.original is not None:
            _hand_over(report.original / ".runner", place.state)
    return report.to_dict(bound=True)


async def _inspect(place: _Place, settings: Settings, observer: Observer) -> StateReport:
    """Compare the state with the latest run and with each account, then read the providers' lists."""
    async with AsyncExitStack() as stack:
        context = await _open(place, settings, observer, stack)
        store, now = context.store, context.clock.now()
        checked, differences = await _find_differences(place, settings, context)
        adopted = put_in_doubt = 0
        providers = [] if place.job is not None else await store.bound_providers()
        not_asked = dict.fromkeys(providers, "not asked; with the manifest instead of the directory it is")
        for pipeline in context.pipelines if differences else ():
            pipeline.load_earlier()
            remembered = await adopt_remembered(pipeline, _memory(pipeline, settings, store), place.state)
            adopted += remembered.adopted
            put_in_doubt += remembered.in_doubt
            for found in await pipeline.ask_before_buying(is_first_run=False):
                adopted += found.adopted
                put_in_doubt += found.in_doubt
                if found.unclear:
                    not_asked[pipeline.name] = found.unclear
        counts = await store.counts()
        return StateReport(
            place.name,
            checked.seen.directory,
            tuple(differences),
            checked.original,
            counts.get(State.QUEUED, 0) - await store.removed_unsent_count(),
            counts.get(State.IN_DOUBT, 0) + counts.get(State.SUBMITTING, 0),
            await store.last_sent_at(),
            adopted,
            put_in_doubt,
            not_asked,
            now,
        )


def _memory(pipeline: ProviderPipeline, settings: Settings, store: Store) -> PurchaseMemory:
    return PurchaseMemory(provider_config.account_directory(pipeline.session.spec, settings), store.uuid)


async def _find_differences(place: _Place, settings: Settings, context: RunContext) -> tuple[BindingCheck, list[str]]:
    """Return the check of the binding, and every difference as a text."""
    directory = str(await anyio.to_thread.run_sync(place.directory.resolve))
    store, registries = context.store, context.registries
    lease = open_lease(settings, store, directory, context.clock.now)
    checked = await check_binding(store, place.state, directory, registries, context.clock.now(), damaged_ok=True)
    differences = checked.describe()
    refusal = await find_refusal(registries, store, directory=directory)
    later = ""
    if lease is not None:
        with suppress(OSError):  # said when it is taken
            later = await lease.find_later_run(expected=False)
    return checked, [*differences, *(each for each in (refusal, later) if each)]


async def _bind(place: _Place, settings: Settings, observer: Observer) -> None:
    """Make the state the one that this machine and each account know."""
    async with AsyncExitStack() as stack:
        context = await _open(place, settings, observer, stack)
        directory, now = str(await anyio.to_thread.run_sync(place.directory.resolve)), context.clock.now()
        await adopt_entry(context.registries, context.store, name=place.name, directory=directory, now=now)
        lease = open_lease(settings, context.store, directory, context.clock.now)
        if lease is not None:
            try:
                await lease.renew(take=True)
            except OSError as error:
                observer.warn(f"the lease {lease.place} cannot be reached: {error.strerror or error}")
                lease = None
        taken = "" if lease is None else lease.place
        await bind_state(place.state, directory, context.registries, now, lease=taken)


def _hand_over(original: Path, state: Path) -> None:
    """Let the original know that its copy goes on: it buys nothing then until the user decides again."""
    with suppress(OSError, RunnerError), job_lock(original):
        if (binding := read_binding(state)) is not None:
            write_binding(original, binding)


async def _open(place: _Place, settings: Settings, observer: Observer, stack: AsyncExitStack) -> RunContext:
    """Open the store and every provider of the job; without its manifest only the accounts. Nothing is bought."""
    if place.job is not None:
        options = RunOptions(verb="audit", again=True)
        return await open_context(place.job, settings, options, observer, stack, clock=Clock())
    store = await Store.open(place.state)
    stack.push_async_callback(store.aclose)
    known = [specs.load(name, settings.providers) for name in await store.bound_providers()]
    registries = [Registry(provider_config.account_directory(spec, settings)) for spec in known]
    return RunContext(store, [], Clock(), Notifier(), registries, observer)
