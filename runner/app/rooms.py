"""The resources of one command: the open store, and a session for each provider that has tasks in the job."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path  # noqa: TC003 - part of a public value
from typing import TYPE_CHECKING, Literal

from runner import logs
from runner.app import lanes, pacing
from runner.app.attaching import attaching
from runner.app.crash import points
from runner.app.tidying import rename
from runner.errors import RunnerError
from runner.net.download import Downloader
from runner.net.limiter import Window
from runner.net.quarantine import Quarantine
from runner.net.space import Space
from runner.pipeline.capacity import Capacity
from runner.pipeline.clock import Clock
from runner.pipeline.pipeline import ProviderPipeline, poll_schedule
from runner.pipeline.reconcile import LATE_RESULT_AGE
from runner.pipeline.session import ProviderSession
from runner.pipeline.settlement import Settlement
from runner.pipeline.spending import Spending
from runner.pipeline.stage import Notifier
from runner.providers import spec as specs
from runner.providers.dialect import Dialect
from runner.report.results import timestamp
from runner.report.tally import Tally
from runner.report.text import many
from runner.store.claims import Claims
from runner.store.registry import Registry
from runner.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from runner.app.jobs import Job
    from runner.lifecycle.events import Event
    from runner.lifecycle.task import Task
    from runner.providers.spec import Spec
    from runner.settings import Settings

Verb = Literal["run", "retry", "reconcile", "verify", "audit"]
#: seconds for which `verify` tries to fetch outputs that the provider may have deleted long ago
_VERIFYING = 600.0


@dataclass(frozen=True, slots=True)
class Choices:
    """Options of one run."""

    quiet: bool = False
    #: seconds after which no new task is begun
    deadline: float | None = None
    #: seconds to wait for the job's lock
    wait_lock: float = 0.0
    verb: Verb = "run"
    #: job directory, if the command line sets one
    out: Path | None = None
    #: for `retry`: include failed tasks
    failed: bool = False
    #: for `retry`: include only tasks that were lost for this reason
    reason: str | None = None
    #: accept other credentials as those of the same account
    same_account: bool = False
    #: open sessions also for providers whose tasks are all finished
    again: bool = False
    #: cap on the job's costs, beside the manifest's
    max_cost: float | None = None
    #: ignore earlier purchases that are not in this job's state
    anew: bool = False
    #: file for Prometheus, updated during the run
    metrics_file: Path | None = None

    @property
    def buys(self) -> bool:
        """Return True if the verb may send requests that cost money."""
        return self.verb == "run" or self.failed


@dataclass(frozen=True, slots=True)
class Rooms:
    """Open resources of one command.

    Its exit stack closes them.
    """

    store: Store
    pipelines: list[ProviderPipeline]
    clock: Clock
    notifier: Notifier
    #: one registry for each account
    registries: list[Registry]


async def open_rooms(
    job: Job,
    settings: Settings,
    options: Choices,
    stack: AsyncExitStack,
    stats: Tally | None = None,
    clock: Clock | None = None,
) -> Rooms:
    """Open the store, add the job's drafts if the verb may buy them, and open a pipeline for each provider with tasks.

    The `stack` closes everything. Raises RunnerError if a resource cannot be opened.
    """
    clock, notifier, failpoint = clock or Clock(), Notifier(), points(settings)
    store = await Store.open(job.state, reach=failpoint)
    stack.push_async_callback(store.aclose)
    await store.name(job.manifest.name)
    await _check_places(store, settings)
    if options.buys:
        naming = job.manifest.output_name or ""
        if await store.add(job.additions(), job.digest, clock.now(), naming):
            renamed = await rename(store, job.directory)
            logs.warn(f"output.name has changed: {many(renamed, 'file')} renamed")
    context = Rooms(store, [], clock, notifier, [])
    on_change = _hearing(stats or Tally(), clock)
    names = await store.providers(again=options.again)
    if options.verb == "run":
        names |= await _late(store, settings, clock.now())
    for name in sorted(names):
        context.pipelines.append(await _pipeline(name, job, settings, context, on_change, stack, failpoint, options))
    return context


async def _late(store: Store, settings: Settings, now: float) -> set[str]:
    """Return the providers that may still deliver tasks which count as lost.

    A provider without credentials or address is left out, because a late result is not worth an error.
    """
    found = set()
    for name in await store.lost_at():
        spec = specs.load(name, settings.providers)
        with suppress(RunnerError):
            lanes.credentials(spec, settings)
            lanes.base_url(spec, settings)
            if await store.late(name, list(spec.operations), now - LATE_RESULT_AGE, 1):
                found.add(name)
    return found


async def _check_places(store: Store, settings: Settings) -> None:
    """Raise if a provider's address is not the one that the job is bound to, even if no task is left."""
    for name in await store.bound():
        spec = specs.load(name, settings.providers)
        if url := settings.text(f"{spec.env}_BASE_URL") or spec.base_url:
            await store.check_origin(name, lanes.origin(url))


def _hearing(stats: Tally, clock: Clock) -> Callable[[Task, Event, Task], None]:
    """Return a listener that counts and logs every committed transition."""
    log = logs.listener()

    def on_change(before: Task, event: Event, after: Task) -> None:
        stats.hear(before, event, after, clock.now())
        # the reader of our output may be gone, which must not stop a run with paid tasks in flight
        with suppress(OSError):
            log(before, event, after)

    return on_change


async def _pipeline(
    name: str,
    job: Job,
    settings: Settings,
    context: Rooms,
    on_change: Callable[[Task, Event, Task], None],
    stack: AsyncExitStack,
    failpoint: Callable[[str], None],
    options: Choices,
) -> ProviderPipeline:
    """Open the pipeline of one provider.

    Binds the provider's address to the job before any request is sent there.
    """
    spec, manifest = specs.load(name, settings.providers), job.manifest
    url = lanes.base_url(spec, settings)
    loopback = lanes.on_loopback(url)
    client = lanes.gateway(spec, settings)
    stack.push_async_callback(client.aclose)
    downloader = _downloader(spec, job, loopback=loopback)
    stack.push_async_callback(downloader.aclose)
    await context.store.bind(name, lanes.origin(url), lanes.account(spec, settings), same=options.same_account)
    account = lanes.home(spec, settings)
    registry = Registry(account)
    context.registries.append(registry)
    limiters = pacing.limiters(spec, manifest, account, context.clock, stack, logs.warn, loopback=loopback)
    policy = lanes.patience(spec, manifest, loopback=loopback)
    if options.verb == "verify":
        policy = replace(policy, paid=min(policy.paid, _VERIFYING))
    caps = [cap for cap in (options.max_cost, manifest.limits.max_cost) if cap is not None]
    capacity = Capacity(
        name,
        Window(manifest.limits.in_flight),
        space=Space(job.directory),
        other_processes_active=lambda: pacing.has_company(limiters),
        on_warning=logs.warn,
    )
    session = ProviderSession(
        spec,
        Dialect(spec),
        client,
        limiters,
        capacity,
        context.clock,
        context.notifier,
        signs=lanes.signs(spec, settings),
        on_warning=logs.warn,
    )
    spending = Spending(
        session,
        context.store,
        max_cost=min(caps, default=None),
        count_daily=_spending(registry, lanes.daily_cost(spec, settings)),
    )
    schedule = poll_schedule(session, policy)
    settlement = Settlement(
        context.store,
        session,
        spending,
        schedule,
        policy=policy,
        claims=Claims(account, context.store.uuid) if spec.needs_claims else None,
        on_change=on_change,
        last_resort=logs.emergency,
        failpoint=failpoint,
    )
    return ProviderPipeline(
        session,
        settlement,
        spending,
        schedule,
        downloader,
        images=attaching(session, job.album, account, stack, loopback=loopback),
        submits=8 if spec.can_look_up else 2,
        downloads=manifest.limits.downloads or max(4, spec.limits.downloads),
    )


def _spending(registry: Registry, cap: float | None) -> Callable[[float, float], Awaitable[bool]] | None:
    """Return a function that books an amount on the account's UTC day if the cap allows it, or None without a cap."""
    if cap is None:
        return None

    async def spend(amount: float, at: float) -> bool:
        return await registry.spend(amount, timestamp(at)[:10], cap)

    return spend


def _downloader(spec: Spec, job: Job, *, loopback: bool) -> Downloader:
    """Return the downloader of a provider's outputs."""
    per_host = job.manifest.limits.downloads or spec.limits.downloads
    return Downloader(per_host=per_host, loopback=loopback, quarantine=Quarantine(job.state / "quarantine"))
