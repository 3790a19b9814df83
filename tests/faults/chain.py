"""The whole client in one process against a sandbox, with a faulty proxy between them.

Run, store, client and dialect are the real ones. Deadlines are short, waits are a tenth, and credentials the sandbox's.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING
from unittest import mock

import anyio

from runner.app import provider_config
from runner.app.job import Fingerprints
from runner.net.client import Deadlines, ProviderClient
from runner.net.downloader import Downloader, DownloadLimits
from runner.net.partial_file import Quarantine
from runner.providers import spec as specs
from runner.providers.requests import Dialect, Request
from runner.providers.responses import read_submit
from runner.ratelimit.limiter import Limiter
from runner.ratelimit.window import SlidingWindow
from runner.sandbox.ledger import Order
from runner.sandbox.server import Options, Sandbox
from runner.scheduler.audit import AuditReport, audit
from runner.scheduler.clock import Clock
from runner.scheduler.run import EVERY_STAGE, Run
from runner.scheduler.stage import Notifier
from runner.settings import Settings
from runner.store.claims import Claims
from runner.store.earlier_rows import EarlierRowsFile
from runner.store.read_only import known_remote_ids
from runner.store.store import Store
from runner.store.task_rows import Addition
from runner.tasks import transitions
from runner.tasks.events import Claimed, Retried
from runner.tasks.list_record import Lag, ListRecord, Witness
from runner.tasks.models import Draft, Moment
from runner.tasks.retry_policy import RetryPolicy, backoff
from tests.pipelines import FactStore, pipeline

from .server import Middle

if TYPE_CHECKING:
    from pathlib import Path

    from runner.scheduler.pipeline import ProviderPipeline

MODELS = {"kling": "kling-v2-1", "chanjing": "kling-v2-1", "kling-gateway": "kling-v1-5"}
#: for a provider that answers within milliseconds, on a machine that may be busy
QUICK = Deadlines(connect=0.8, read=0.8, total=1.6)


def hurried(failures, **bounds):
    """Return the real back-off, ten times as fast."""
    return backoff(failures, **bounds) / 10


def request(provider, number, count=1):
    """Return the request of the n-th draft."""
    if provider == "chanjing":
        return {"ref_prompt": f"boat {number}", "aspect_ratio": "1:1", "number_of_images": count}
    return {"prompt": f"boat {number}", "aspect_ratio": "1:1", **({"n": count} if count > 1 else {})}


@dataclass
class ChainResult:
    """The result of one run. `tasks` and `outputs` are the rows, in order."""

    exit: int
    reasons: list[str]
    tasks: list[dict]
    outputs: list[dict]
    #: (state, event, state) of every change
    changes: list[tuple]
    #: warnings to the user
    warnings: list[str]
    pipeline: ProviderPipeline
    #: what an audit at the end found, if one was asked for
    audit: AuditReport | None = None

    @property
    def states(self):
        return [task["state"] for task in self.tasks]

    def events_of(self, kind):
        """Return every event of this kind, in order."""
        return [event for _, event, _ in self.changes if isinstance(event, kind)]

    def sent_before(self, kind, state):
        """Return how many submits were claimed before the first event of this kind that led to this state."""
        events = enumerate(self.changes)
        first = next(n for n, (_, event, after) in events if isinstance(event, kind) and after == state)
        return sum(isinstance(event, Claimed) for _, event, _ in self.changes[:first])


@dataclass
class Chain:
    """One job directory, its provider, and the proxy between them."""

    directory: Path
    sandbox: Sandbox
    middle: Middle
    provider: str
    settings: Settings
    #: cost of one purchase
    cost: float | None = None
    #: URL, if it is not the proxy's
    url: str | None = None
    deadlines: Deadlines = QUICK
    bounds: DownloadLimits = field(default_factory=lambda: DownloadLimits(read=0.8, deadline=3))
    policy: RetryPolicy = field(default_factory=lambda: RetryPolicy(quiet_time=0.3, first_poll=0.05, paid_timeout=20.0))
    #: submits and queries per second
    rate: float = 200.0
    query_rate: float = 500.0
    #: seconds of the rates' window, which is also the wait after a rate limit, but half a second at least
    span: float = 0.2
    window: int | None = None
    workers: int | None = None
    context: object = None
    resolver: object = None
    #: authentication scheme; None: the real one with the sandbox's credentials
    scheme: object = None
    #: the account has bought before, and its list was measured then
    prior: bool = True
    #: what the account's jobs know of its list, in place of the file
    listed: ListRecord = field(default_factory=ListRecord)
    fact_store: FactStore = field(default_factory=FactStore)

    @property
    def accepted(self):
        """Return the tasks in the provider's ledger, but for those from before the test."""
        return [task for task in self.sandbox.ledger.accepted if not task.prompt.startswith("prior")]

    def calibrate(self):
        """Enter three tasks into the ledger that another job has bought an hour ago, and what it has learned."""
        known, fields, clock = [], {"kling": "prompt", "chanjing": "ref_prompt"}, Clock()
        for number in range(3 if self.provider in fields else 0):
            at, text = clock.now() - 3600 + 10 * number, f"prior {number}"
            body = {"prompt": text, "ref_prompt": text, "creation_type": 3, "model_code": MODELS[self.provider]}
            operation = {"kling": "images/generations", "chanjing": "image"}[self.provider]
            account = {"kling": identify_key(self.settings), "chanjing": "sandbox-app"}[self.provider]
            order = Order(
                f"{number}-prior",
                self.provider,
                account,
                operation,
                "image",
                f"prior-{number}",
                body,
                1,
                lambda _: None,
            )
            task = self.sandbox.ledger.accept(order, at)
            moment = Moment(clock.boot, clock.moment().seconds - 3600 + 10 * number)
            known.append(Witness(task.id, task.external_id, MODELS[self.provider], at - 1, at, moment))
        echo = {(MODELS[self.provider], name): True for name in ("model_code", "creation_type", "ref_prompt")}
        self.listed = ListRecord(tuple(known), Lag(len(known), 0.0), len(known), echo)

    async def load(self, *_):
        return self.listed

    async def save(self, _, record, __):
        self.listed = record

    async def record(self, name, *facts):
        await self.fact_store.record(name, *facts)

    def version(self):
        return self.fact_store.version()

    async def facts(self, name, now):
        return await self.fact_store.facts(name, now)

    @property
    def files(self):
        return sorted(path for path in self.directory.glob("*") if path.is_file())

    def paid_once(self, result, count):
        """Check that every task is done, was bought once, and has the provider's id."""
        assert result.states == ["done"] * count, (result.states, result.reasons)
        assert sorted(task["remote_id"] for task in result.tasks) == sorted(task.id for task in self.accepted)
        assert self.sandbox.ledger.duplicates() == 0
        assert len(self.accepted) == count

    async def run(self, count=2, *, images=1, requests=None, deadline=None, retried=(), audited=False):
        """Run this number of tasks. `retried` are states whose tasks the user retries."""
        changes, warnings, bugs, found = [], [], [], None
        wanted = requests or [request(self.provider, number, images) for number in range(1, count + 1)]
        async with AsyncExitStack() as stack:
            clock, notifier = Clock(), Notifier()
            made = await self._pipeline(
                stack,
                clock,
                notifier,
                on_change=lambda before, event, after: changes.append((before.state, event, after.state)),
                last_resort=lambda *words: bugs.append(words),
                on_warning=warnings.append,
            )
            store = made.settlement.store
            await made.load_facts()
            await store.add(self._additions(made.session.spec, wanted), f"{len(wanted)} {images}", clock.now())
            await _again(made, clock, retried)
            run = Run(
                [made],
                store=store,
                directory=self.directory,
                clock=clock,
                notifier=notifier,
                deadline=deadline,
                on_bug=bugs.append,
                signals=False,
                stages=EVERY_STAGE,
            )
            with anyio.fail_after(20):
                outcome = await run.run()
            if audited:
                found = await audit(made.session, store, known_remote_ids(self.directory / ".runner"))
        assert not bugs, bugs
        reasons = [ending.why for ending in outcome.endings]
        return ChainResult(
            int(outcome.exit), reasons, self._rows("task"), self._rows("output"), changes, warnings, made, found
        )

    async def elsewhere(self, *wanted):
        """Buy these as another client of the account, directly at the sandbox, and return their ids."""
        spec = specs.load(self.provider)
        scheme = provider_config.auth_scheme(spec, self.settings)
        gateway = ProviderClient(f"http://127.0.0.1:{self.middle.port}", scheme, deadlines=self.deadlines)
        ids = []
        for fields in wanted:
            body = Dialect(spec).body("image", MODELS[self.provider], fields)
            outcome = await gateway.send(Request("submit", "POST", spec.operations["image"].path, "submit", body))
            ids.append(read_submit(spec, outcome).remote_id)  # the job may buy at the same time
        await gateway.aclose()
        return ids

    async def _pipeline(self, stack, clock, notifier, **listeners):
        spec = specs.load(self.provider)
        store = await Store.open(self.directory / ".runner")
        stack.push_async_callback(store.aclose)
        client = ProviderClient(
            self.url or self.middle.url,
            self.scheme or provider_config.auth_scheme(spec, self.settings),
            deadlines=self.deadlines,
            context=self.context,
            resolver=self.resolver,
        )
        downloader = Downloader(
            loopback=True, limits=self.bounds, quarantine=Quarantine(self.directory / ".runner" / "quarantine")
        )
        stack.push_async_callback(client.aclose)
        stack.push_async_callback(downloader.aclose)
        return pipeline(
            spec,
            client,
            downloader,
            {"submit": self._limiter(self.rate), "query": self._limiter(self.query_rate)},
            store=store,
            clock=clock,
            notifier=notifier,
            policy=replace(self.policy, can_reconcile=spec.can_reconcile),
            window=self.window,
            claims=Claims(provider_config.account_directory(spec, self.settings), store.uuid)
            if spec.needs_claims
            else None,
            submits=self.workers or (8 if spec.can_reconcile else 2),
            most_submits=self.workers or (128 if spec.can_reconcile else 2),
            facts=self,
            earlier=EarlierRowsFile(self.directory / ".runner"),
            **listeners,
        )

    def _limiter(self, rate):
        return Limiter(SlidingWindow(rate * self.span, self.span), time.monotonic, anyio.sleep)

    def _additions(self, spec, wanted):
        prints, model = Fingerprints(self.settings), MODELS[self.provider]
        for number, fields in enumerate(wanted, start=1):
            key, slots = f"{number:08x}".ljust(32, "0"), fields.get("n", 1)
            draft = Draft(key, number, 1, {}, spec.name, "image", model, fields, f"boat-{number}", slots)
            yield Addition(draft, prints.of(spec.name, "image", model, fields), self.cost)

    def _rows(self, table):
        order = {"task": "id", "output": "task_id, number"}[table]
        with closing(sqlite3.connect(self.directory / ".runner" / "state.db")) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(f"select * from {table} order by {order}")]


def identify_key(settings):
    """Return the sandbox's name of the account of its Kling key."""
    return f"key-{sha256(settings.text('KLING_API_KEY').encode()).hexdigest()[:16]}"


async def _again(made, clock, states):
    store = made.settlement.store
    for state in states:
        for task in await store.in_state(state):
            await store.settle(task, transitions.advance(task, Retried(), clock.now(), made.settlement.policy))


@asynccontextmanager
async def chain(directory, provider="kling", *, tls=None, greet=None, **options):
    """Run a sandbox and a proxy for a job directory. Options that the sandbox does not have are the chain's."""
    ours = {name: options.pop(name) for name in list(options) if name in Chain.__dataclass_fields__}
    async with (
        Sandbox(Options(**{"seconds": (0.0, 0.0), **options})) as sandbox,
        Middle(sandbox, tls=tls, greet=greet) as middle,
    ):
        words = {name: middle.url if name.endswith("_URL") else value for name, value in sandbox.env.items()}
        settings = Settings({**words, "RUNNER_HOME": str(directory / "home")})
        (directory / "job").mkdir()
        with mock.patch.object(transitions, "backoff", hurried):
            made = Chain(directory / "job", sandbox, middle, provider, settings, **ours)
            if made.prior:
                made.calibrate()
            yield made
