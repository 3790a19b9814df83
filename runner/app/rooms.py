"""What a verb works in: the open store, and a lane for each provider that the job has work with."""

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
    from runner.lifecycle.patience import Patience
    from runner.lifecycle.task import Task
    from runner.providers.spec import Spec
    from runner.settings import Settings

Verb = Literal["run", "retry", "reconcile", "verify", "audit"]
#: seconds that `verify` tries to fetch what the provider may have forgotten long ago
_VERIFYING = 600.0


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
    #: the account is the same, whatever its key
    same_account: bool = False
    #: tasks at rest are asked about as well
    again: bool = False
    #: a cap on the job's costs beside the manifest's
    max_cost: float | None = None
    #: what was bought before, and is not in this job's state, does not count
    anew: bool = False
    #: for Prometheus, kept fresh while the run goes on
    metrics_file: Path | None = None

    @property
    def buys(self) -> bool:
        """Whether the verb may send what costs."""
        return self.verb == "run" or self.failed


@dataclass(frozen=True, slots=True)
class Rooms:
    """What a verb works in, open until its stack closes."""

    store: Store
    pipelines: list[ProviderPipeline]
    clock: Clock
    notifier: Notifier
    #: one for each account
    registries: list[Registry]


async def open_rooms(
    job: Job,
    settings: Settings,
    choices: Choices,
    stack: AsyncExitStack,
    tally: Tally | None = None,
    clock: Clock | None = None,
) -> Rooms:
    """The store, the job's drafts in it where the verb may buy them, and a lane for each provider it has work with."""
    clock, notifier, reach = clock or Clock(), Notifier(), points(settings)
    store = await Store.open(job.state, reach=reach)
    stack.push_async_callback(store.aclose)
    await store.name(job.manifest.name)
    await _check_places(store, settings)
    if choices.buys:
        naming = job.manifest.output_name or ""
        if await store.add(job.additions(), job.digest, clock.now(), naming):
            renamed = await rename(store, job.directory)
            logs.warn(f"output.name has changed: {many(renamed, 'file')} renamed")
    rooms = Rooms(store, [], clock, notifier, [])
    hear = _hearing(tally or Tally(), clock)
    names = await store.providers(again=choices.again)
    if choices.verb == "run":
        names |= await _late(store, settings, clock.now())
    for name in sorted(names):
        rooms.pipelines.append(await _pipeline(name, job, settings, rooms, hear, stack, reach, choices))
    return rooms


async def _late(store: Store, settings: Settings, now: float) -> set[str]:
    """Providers that may have made after all what counts as lost; not worth an error where there are no credentials."""
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
    """What was made at one host must not pass for another's, even where there is nothing left to do."""
    for name in await store.bound():
        spec = specs.load(name, settings.providers)
        if url := settings.text(f"{spec.env}_BASE_URL") or spec.base_url:
            await store.check_origin(name, lanes.origin(url))


def _hearing(tally: Tally, clock: Clock) -> Callable[[Task, Event, Task], None]:
    log = logs.listener()

    def hear(before: Task, event: Event, after: Task) -> None:
        tally.hear(before, event, after, clock.now())
        # whoever read our lines may be gone; that must not stop a run with money in flight (FP8)
        with suppress(OSError):
            log(before, event, after)

    return hear


async def _pipeline(
    name: str,
    job: Job,
    settings: Settings,
    rooms: Rooms,
    hear: Callable[[Task, Event, Task], None],
    stack: AsyncExitStack,
    reach: Callable[[str], None],
    choices: Choices,
) -> ProviderPipeline:
    """Return one provider's pipeline. Its address is bound to the job before anything is asked there."""
    spec, manifest = specs.load(name, settings.providers), job.manifest
    url = lanes.base_url(spec, settings)
    loopback = lanes.on_loopback(url)
    gateway = lanes.gateway(spec, settings)
    stack.push_async_callback(gateway.aclose)
    downloader = _downloader(spec, job, loopback=loopback)
    stack.push_async_callback(downloader.aclose)
    await rooms.store.bind(name, lanes.origin(url), lanes.account(spec, settings), same=choices.same_account)
    registry = Registry(lanes.home(spec, settings))
    rooms.registries.append(registry)
    limiters = pacing.limiters(
        spec, manifest, lanes.home(spec, settings), rooms.clock, stack, logs.warn, loopback=loopback
    )
    policy, warn = _patience(spec, job, choices, loopback=loopback), logs.warn
    capacity = Capacity(
        name,
        Window(manifest.limits.in_flight),
        space=Space(job.directory),
        other_processes_active=lambda: pacing.has_company(limiters),
        on_warning=warn,
    )
    session = ProviderSession(
        spec,
        Dialect(spec),
        gateway,
        limiters,
        capacity,
        rooms.clock,
        rooms.notifier,
        signs=lanes.signs(spec, settings),
        on_warning=warn,
    )
    spending = Spending(
        session,
        rooms.store,
        max_cost=_cap(choices.max_cost, manifest.limits.max_cost),
        count_daily=_spending(registry, lanes.daily_cost(spec, settings)),
    )
    schedule = poll_schedule(session, policy)
    settlement = Settlement(
        rooms.store,
        session,
        spending,
        schedule,
        policy=policy,
        claims=Claims(lanes.home(spec, settings), rooms.store.uuid) if spec.needs_claims else None,
        on_change=hear,
        last_resort=logs.emergency,
        failpoint=reach,
    )
    return ProviderPipeline(
        session,
        settlement,
        spending,
        schedule,
        downloader,
        images=attaching(session, job.album, lanes.home(spec, settings), stack, loopback=loopback),
        submits=8 if spec.can_look_up else 2,
        downloads=manifest.limits.downloads or max(4, spec.limits.downloads),
    )


def _cap(*caps: float | None) -> float | None:
    return min((cap for cap in caps if cap is not None), default=None)


def _spending(registry: Registry, cap: float | None) -> Callable[[float, float], Awaitable[bool]] | None:
    """Counts against what the account may spend in a day (UTC); None: it may spend anything."""
    if cap is None:
        return None

    async def spend(amount: float, at: float) -> bool:
        return await registry.spend(amount, timestamp(at)[:10], cap)

    return spend


def _patience(spec: Spec, job: Job, choices: Choices, *, loopback: bool) -> Patience:
    whole = lanes.patience(spec, job.manifest, loopback=loopback)
    return replace(whole, paid=min(whole.paid, _VERIFYING)) if choices.verb == "verify" else whole


def _downloader(spec: Spec, job: Job, *, loopback: bool) -> Downloader:
    per_host = job.manifest.limits.downloads or spec.limits.downloads
    return Downloader(per_host=per_host, loopback=loopback, quarantine=Quarantine(job.state / "quarantine"))
