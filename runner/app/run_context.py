"""The resources of one command: the open store, and a session for each provider that has tasks in the job."""

from __future__ import annotations

import asyncio
import math
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path  # noqa: TC003 - part of a public value
from typing import TYPE_CHECKING, Literal

import anyio
import anyio.to_thread

from runner.app import provider_config
from runner.app.checked_manifest import write_record
from runner.app.enqueue import PAGED_FROM, Enqueuer
from runner.app.failpoints import failpoint_hook
from runner.app.job import Goods
from runner.app.job_lease import LeaseMode  # noqa: TC001 - part of a public value
from runner.app.output_files import rename_outputs
from runner.app.task_changes import AdditionReview
from runner.errors import RunnerError
from runner.net.disk_space import FreeSpace
from runner.net.downloader import Downloader
from runner.net.partial_file import Quarantine
from runner.net.upload import Uploader
from runner.providers import spec as specs
from runner.providers.requests import Dialect
from runner.ratelimit.limiter import InFlightWindow, Limiter
from runner.ratelimit.shared import SharedSlidingWindow
from runner.ratelimit.window import SlidingWindow
from runner.report.results import iso_timestamp
from runner.report.stats import RunStats
from runner.scheduler.capacity import Capacity
from runner.scheduler.clock import Clock
from runner.scheduler.late_results import LATE_RESULT_AGE
from runner.scheduler.local_images import InlineImages, UploadedImages
from runner.scheduler.pipeline import ProviderPipeline, poll_schedule
from runner.scheduler.session import ProviderSession
from runner.scheduler.settlement import Settlement
from runner.scheduler.spending import Spending
from runner.scheduler.stage import Notifier
from runner.store.claims import Claims
from runner.store.earlier_rows import EarlierRowsFile
from runner.store.facts import AccountFacts
from runner.store.purchases import PurchaseMemory
from runner.store.rate_state import SharedRateState
from runner.store.registry import Registry
from runner.store.store import Store
from runner.store.upload_cache import UploadCache
from runner.text import pluralize

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from runner.app.image_files import LocalImages
    from runner.app.job import LoadedJob
    from runner.app.observer import Observer
    from runner.manifest.model import Manifest
    from runner.providers.spec import Spec
    from runner.ratelimit.limiter import RateLimit
    from runner.scheduler.local_images import ImageSource
    from runner.settings import Settings
    from runner.tasks.events import Event
    from runner.tasks.models import Task
    from runner.units import TimeOfDay


Verb = Literal["run", "retry", "reconcile", "verify", "audit"]
Elsewhere = Literal["link", "ignore"]
#: seconds for which providers keep files at most, and tasks that one run takes up since their files were not served
FILES_LIVE, MOST_UNSERVED = 30 * 86_400.0, 10_000
#: seconds for which `verify` tries to fetch outputs that the provider may have deleted long ago
_MAX_VERIFY_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of one run."""

    quiet: bool = False
    #: seconds after which no new task is begun
    deadline: float | None = None
    #: when the run ends, whatever is not finished then: seconds after its begin, or a time of day
    until: float | TimeOfDay | None = None
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
    buy_again: bool = False
    #: prefixes of the keys of tasks that are bought although another job of the account has bought them
    buy_again_keys: tuple[str, ...] = ()
    #: what becomes of tasks that another job of the account has bought: linked, or bought as if nothing were known
    elsewhere: Elsewhere = "link"
    #: new tasks that may stand where bought ones stood; None: any number
    changes: int | None = None
    #: what happens if the lease of RUNNER_LEASE cannot be reached
    lease: LeaseMode = "optional"
    #: go on though a provider was contradicted often; every lost answer is left to the user
    trust_less: bool = False
    #: file for Prometheus, updated during the run
    metrics_file: Path | None = None

    @property
    def may_buy(self) -> bool:
        """Return True if the verb may send requests that cost money."""
        return self.verb == "run" or self.failed


@dataclass(frozen=True, slots=True)
class RunContext:
    """Open resources of one command.

    Its exit stack closes them.
    """

    store: Store
    pipelines: list[ProviderPipeline]
    clock: Clock
    notifier: Notifier
    #: one registry for each account
    registries: list[Registry]
    observer: Observer
    #: adds the other tasks of a large manifest; None: all are in
    enqueuer: Enqueuer | None = None
    #: tasks were added in this run
    has_new_tasks: bool = False
    #: what each account's jobs have bought, by provider; empty in the embedded sandbox, where nothing is bought
    memories: dict[str, PurchaseMemory] = field(default_factory=dict)


async def open_context(
    job: LoadedJob,
    settings: Settings,
    options: RunOptions,
    observer: Observer,
    stack: AsyncExitStack,
    stats: RunStats | None = None,
    clock: Clock | None = None,
) -> RunContext:
    """Open the store, add the job's drafts if the verb may buy them, and open a pipeline for each provider with tasks.

    The `stack` closes everything. Raises RunnerError if a resource cannot be opened.
    """
    clock, notifier, failpoint = clock or Clock(), Notifier(), failpoint_hook(settings)
    store = await Store.open(job.state_directory, failpoint=failpoint)
    stack.push_async_callback(store.aclose)
    await store.set_name(job.manifest.name)
    await _check_origins(store, settings)
    enqueuer, has_new_tasks = None, False
    if options.may_buy:
        has_new_tasks = not await store.is_added(job.digest)
        enqueuer = await _add_tasks(job, options, store, observer, clock)
    context = RunContext(store, [], clock, notifier, [], observer, enqueuer, has_new_tasks)
    on_change = _change_listener(stats or RunStats(), clock, observer)
    names = await store.providers_with_work(include_finished=options.again)
    if enqueuer is not None:
        names |= job.summary.by_provider.keys()
    if options.verb == "run":
        names |= await _providers_with_late_results(store, settings, clock.now())
    for name in sorted(names):
        context.pipelines.append(
            await _open_pipeline(name, job, settings, context, on_change, stack, failpoint, options)
        )
    return context


async def _add_tasks(
    job: LoadedJob, options: RunOptions, store: Store, observer: Observer, clock: Clock
) -> Enqueuer | None:
    """Add the manifest's tasks. Of a large one, where it may be, add only the first and return what adds the rest."""
    naming = job.manifest.naming
    if not job.was_known:
        await anyio.to_thread.run_sync(write_record, job.state_directory, job.check_record())
    await store.fill_goods(Goods(job.catalogue).of)
    is_large = job.summary.tasks >= PAGED_FROM and options.verb == "run"
    if is_large and not options.buy_again and not options.buy_again_keys and not await store.is_added(job.digest):
        done = await store.begin_pages(job.digest, job.summary.key_sum, job.summary.tasks, naming)
        if done is not None:
            enqueuer = Enqueuer(job, store, done, clock.now)
            if not await store.has_unbought():
                await enqueuer.add_first()
            return enqueuer
    review = AdditionReview(job, options.changes, observer.warn)
    before = await store.naming()
    rename = await store.add(
        job.additions(), job.digest, clock.now(), naming, review.count_restated, review.check_replaced
    )
    if rename:
        renamed = await rename_outputs(store, job.directory)
        has_same_names = before.partition("\n")[0] == naming.partition("\n")[0]
        changed = "output.shards" if has_same_names else "output.name"
        observer.warn(f"{changed} has changed: {pluralize(renamed, 'file')} renamed")
    return None


async def _providers_with_late_results(store: Store, settings: Settings, now: float) -> set[str]:
    """Return the providers that may still deliver tasks which count as lost, or files that were not served.

    A provider without credentials or address is left out, because a late result is not worth an error.
    """
    found, unserved = set(), {task.provider for task in await store.unserved(now - FILES_LIVE, MOST_UNSERVED)}
    for name in await store.providers_with_losses():
        spec = specs.load(name, settings.providers)
        with suppress(RunnerError):
            provider_config.credentials(spec, settings)
            provider_config.base_url(spec, settings)
            if name in unserved or await store.late_candidates(name, list(spec.operations), now - LATE_RESULT_AGE, 1):
                found.add(name)
    return found


async def _check_origins(store: Store, settings: Settings) -> None:
    """Raise if a provider's address is not the one that the job is bound to, even if no task is left."""
    for name in await store.bound_providers():
        spec = specs.load(name, settings.providers)
        if url := settings.text(f"{spec.env}_BASE_URL") or spec.base_url:
            await store.check_origin(name, provider_config.origin(url))


def _change_listener(stats: RunStats, clock: Clock, observer: Observer) -> Callable[[Task, Event, Task], None]:
    """Return a listener that counts every committed transition and hands it to the observer."""

    def on_change(before: Task, event: Event, after: Task) -> None:
        stats.on_event(before, event, after, clock.now())
        observer.on_change(before, event, after)

    return on_change


async def _open_pipeline(
    name: str,
    job: LoadedJob,
    settings: Settings,
    context: RunContext,
    on_change: Callable[[Task, Event, Task], None],
    stack: AsyncExitStack,
    failpoint: Callable[[str], None],
    options: RunOptions,
) -> ProviderPipeline:
    """Open the pipeline of one provider.

    Binds the provider's address to the job before any request is sent there.
    """
    spec, manifest, on_warning = specs.load(name, settings.providers), job.manifest, context.observer.warn
    url = provider_config.base_url(spec, settings)
    loopback = provider_config.is_on_loopback(url)
    client = provider_config.provider_client(spec, settings)
    stack.push_async_callback(client.aclose)
    downloader = _downloader(spec, job, settings, loopback=loopback)
    stack.push_async_callback(downloader.aclose)
    bound_before = await context.store.account_of(name)
    await context.store.bind(
        name,
        provider_config.origin(url),
        provider_config.account_hash(spec, settings),
        same_account=options.same_account,
    )
    account = provider_config.account_directory(spec, settings)
    if options.may_buy and settings.text(provider_config.SANDBOX_VARIABLE) is None:
        memory = context.memories[name] = PurchaseMemory(account, context.store.uuid, failpoint)
        if options.same_account and bound_before:
            await memory.add_same_account(provider_config.account_directory(spec, settings, bound_before))
    registry = Registry(account)
    context.registries.append(registry)
    limiters = build_limiters(spec, manifest, account, context.clock, stack, on_warning, loopback=loopback)
    policy = provider_config.retry_policy(spec, manifest, loopback=loopback)
    if options.trust_less:
        policy = replace(policy, can_reconcile=False)
    if options.verb == "verify":
        policy = replace(policy, paid_timeout=min(policy.paid_timeout, _MAX_VERIFY_SECONDS))
    caps = [cap for cap in (options.max_cost, manifest.limits.max_cost) if cap is not None]
    capacity = Capacity(
        name,
        InFlightWindow(manifest.limits.in_flight),
        space=FreeSpace(job.directory),
        other_processes_active=lambda: has_other_processes(limiters),
        on_warning=on_warning,
    )
    session = ProviderSession(
        spec,
        Dialect(spec),
        client,
        limiters,
        capacity,
        context.clock,
        context.notifier,
        signs_requests=provider_config.has_signed_requests(spec, settings),
        on_warning=on_warning,
        quiet_time=policy.quiet_time,
    )
    session.refusals.trusts_less = options.trust_less
    session.has_bought = _purchase_search(context, name)
    session.sold = {each for each in spec.operations if await context.store.has_remote_ids(name, each)}
    spending = Spending(
        session,
        context.store,
        max_cost=min(caps, default=None),
        count_daily=_daily_spending(registry, provider_config.daily_cost_cap(spec, settings)),
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
        last_resort=context.observer.write_last_resort,
        failpoint=failpoint,
    )
    pipeline = ProviderPipeline(
        session,
        settlement,
        spending,
        schedule,
        downloader,
        facts=AccountFacts(account),
        earlier=EarlierRowsFile(job.state_directory),
        images=image_source(session, job.images, account, stack, settings, loopback=loopback),
        submits=provider_config.FIRST_SUBMITS if policy.can_reconcile else provider_config.BLIND_SUBMITS,
        most_submits=provider_config.most_submits(spec, manifest, can_look_up=policy.can_reconcile),
        downloads=manifest.limits.downloads or max(4, spec.limits.downloads),
    )
    await pipeline.load_facts()
    return pipeline


def _purchase_search(context: RunContext, name: str) -> Callable[[], Awaitable[bool]]:
    """Return a function that finds whether this job or the account's other jobs have ever bought from a provider."""

    async def has_bought() -> bool:
        memory = context.memories.get(name)
        return await context.store.has_remote_ids(name) or (memory is not None and await memory.has_others())

    return has_bought


def _daily_spending(registry: Registry, cap: float | None) -> Callable[[float, float], Awaitable[bool]] | None:
    """Return a function that books an amount on the account's UTC day if the cap allows it, or None without a cap."""
    if cap is None:
        return None

    async def spend(amount: float, at: float) -> bool:
        return await registry.spend(amount, iso_timestamp(at)[:10], cap)

    return spend


def _downloader(spec: Spec, job: LoadedJob, settings: Settings, *, loopback: bool) -> Downloader:
    """Return the downloader of a provider's outputs."""
    per_host = job.manifest.limits.downloads or spec.limits.downloads
    quarantine = Quarantine(job.state_directory / "quarantine")
    return Downloader(per_host=per_host, loopback=loopback, quarantine=quarantine, **provider_config.way_out(settings))


#: boot id if the system has none; timestamps of an earlier boot are then recognised by lying in the future
_UNNAMED_BOOT = "unnamed"


def build_limiters(
    spec: Spec,
    manifest: Manifest,
    account: Path,
    clock: Clock,
    stack: AsyncExitStack,
    on_warning: Callable[[str], None],
    *,
    loopback: bool,
) -> dict[str, Limiter]:
    """Return a limiter for each endpoint.

    `account` is the directory that the account's jobs share.
    If the manifest sets no rate, a limiter begins with the spec's rate and adapts to what the provider accepts.
    """
    found = {}
    for endpoint, rate in provider_config.endpoint_rates(spec, manifest, loopback=loopback).items():
        adapts = manifest.limits.qps is None and endpoint != "upload"
        window = SlidingWindow(rate.count, rate.seconds, ceiling=math.inf if adapts else None)
        rate_limit = _shared_window(window, account, endpoint, clock, stack, on_warning)
        found[endpoint] = Limiter(rate_limit, clock.monotonic, anyio.sleep)
    return found


def has_other_processes(limiters: Mapping[str, Limiter]) -> bool:
    """Return True if other runner processes use the account now."""
    rate_limit = limiters["submit"].rate_limit
    return isinstance(rate_limit, SharedSlidingWindow) and rate_limit.other_processes > 0


def _shared_window(
    window: SlidingWindow,
    account: Path,
    endpoint: str,
    clock: Clock,
    stack: AsyncExitStack,
    on_warning: Callable[[str], None],
) -> RateLimit:
    """Return the window with state that the account's processes share.

    If the shared state cannot be opened, warn and return the window alone, because a run need not stop for that.
    """
    boot = _UNNAMED_BOOT if clock.boot.startswith("process-") else clock.boot
    try:
        state = SharedRateState(account / "budget", endpoint, boot)
    except OSError as error:
        reason = f"{account}: {error.strerror or error}"
        on_warning(f"{reason}: the rate is not shared with other runs; RUNNER_HOME names the directory")
        return window
    shared = SharedSlidingWindow(window, state, clock.monotonic, _call_later, on_warning)
    stack.callback(shared.close)
    return shared


def _call_later(seconds: float, call: Callable[[], None]) -> None:
    """Call a function on the running event loop after a delay."""
    asyncio.get_running_loop().call_later(seconds, call)


def image_source(
    session: ProviderSession,
    images: LocalImages,
    account: Path,
    stack: AsyncExitStack,
    settings: Settings,
    *,
    loopback: bool,
) -> ImageSource | None:
    """Return what puts local images into a provider's requests, or None if the provider takes no images.

    `account` is the directory that the account's jobs share. An uploader is closed with the `stack`.
    """
    upload = session.spec.upload
    if session.spec.images is None:
        return None
    if upload is None:
        return InlineImages(images.read, anyio.to_thread.run_sync)
    uploader = Uploader(loopback=loopback, **provider_config.way_out(settings))
    stack.push_async_callback(uploader.aclose)
    return UploadedImages(session, upload, images.read, uploader, UploadCache(account), anyio.to_thread.run_sync)
