"""The real run, session, store and limiter against a provider in virtual time, with kills and restarts of the client.

A crash is `SimCrash`, raised from a port or a failpoint. From then on every port refuses, the loop stops, and the
client's memory is dropped without any effect. The directory, the ledger and requests in flight remain.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import inspect
import random
import shutil
import signal
import sqlite3
import tempfile
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import anyio

from runner.app.job import Fingerprints
from runner.errors import RunnerError
from runner.net.downloader import DeadLink, DownloadedFile, RetryLater
from runner.providers import spec as specs
from runner.providers.requests import Dialect
from runner.providers.responses import proof_of_body
from runner.ratelimit.limiter import Limiter
from runner.ratelimit.window import SlidingWindow
from runner.scheduler.clock import Clock
from runner.scheduler.outcome import Exit
from runner.scheduler.run import Run
from runner.scheduler.stage import Notifier
from runner.settings import Settings
from runner.store.earlier_rows import EarlierRowsFile
from runner.store.store import Store
from runner.store.task_rows import Addition
from runner.tasks.list_record import Lag, ListRecord, Witness
from runner.tasks.models import Draft, Moment, TaskError
from runner.tasks.retry_policy import RetryPolicy
from tests.pipelines import FactStore, pipeline
from tests.simulation.faults import Life, Plan
from tests.simulation.invariants import FINAL, Invariants, by_state
from tests.simulation.loop import DeadlockError, SimLoop, numbered_scopes
from tests.simulation.lying_provider import LYING_PROVIDERS
from tests.simulation.provider import EPOCH, PROVIDERS

#: liveness: after the faults have stopped, D and so much
SOON = 7200.0
#: safety: no life is longer, virtual seconds
LONGEST = 6 * 3600.0
#: a drain ends within so many seconds of the first signal
DRAIN = 35.0
#: steps of the loop after which a life counts as spinning
STEPS = 3_000_000
_SPECS = {"kling": "kling", "chanjing": "chanjing", "kling-gateway": "kling-gateway"}
_SHARED_MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None


class SimCrash(BaseException):
    """Raised when the simulated process dies."""


@dataclass
class Report:
    """The outcome of a seed."""

    plan: Plan
    violation: str | None = None
    trace: str = ""
    seconds: float = 0.0
    lives: list[str] = field(default_factory=list)
    states: dict[str, int] = field(default_factory=dict)
    sents: int = 0
    #: when the last submit was sent
    last_sent: float = 0.0
    unclear: int = 0
    made: int = 0
    crashes: Counter[str] = field(default_factory=Counter)
    events: int = 0
    requests: Counter[tuple[str, bool, bool]] = field(default_factory=Counter)
    tail: list[str] = field(default_factory=list)
    #: the largest number of results that waited for their download, by second
    waiting: dict[int, int] = field(default_factory=dict)
    #: when each life ended
    ended: list[float] = field(default_factory=list)


def play(plan: Plan, *, trace: bool = False) -> Report:
    """Run a plan from the first process to the last check, and return its report."""
    directory = Path(tempfile.mkdtemp(prefix="simulation-", dir=_SHARED_MEMORY))
    collecting = gc.isenabled()
    gc.disable()  # what one seed leaves is little, and collecting it again and again takes a tenth of the time
    try:
        return World(plan, directory, keep=None if trace else 60).play()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        if collecting:
            gc.enable()


def chanjing_request(prompt):
    return {"ref_prompt": f" a cat, number {prompt} ", "aspect_ratio": "1:1", "number_of_images": 2}


def _request(kind, prompt):
    return chanjing_request(prompt) if kind == "chanjing" else {"prompt": f"a cat, number {prompt}", "n": 2}


_MODELS = {"kling": "kling-v2-1", "chanjing": "kling-v2-1", "kling-gateway": "kling-v2-1"}


class World:
    """One execution of a plan."""

    def __init__(self, plan, directory, *, keep=60):
        self.plan, self.directory = plan, directory
        self.state = directory / ".runner"
        self.now = 0.0
        self.loop = None
        self.wall_offset, self.boot, self.boot_began = 0.0, "boot 0", -1000.0
        self.order = random.Random(f"order {plan.seed}")
        self.dice = random.Random(f"world {plan.seed}")
        self.report = Report(plan)
        self._hash = hashlib.sha256()
        self._tail = deque(maxlen=keep)
        self.spec = specs.load(_SPECS[plan.kind])
        providers = PROVIDERS if plan.lies is None else LYING_PROVIDERS
        self.provider = providers[plan.kind](plan, self.time, self.note)
        self.additions = list(_additions(plan, self.spec))
        dialect = Dialect(self.spec)
        self._groups = {
            each.draft.key: self.provider.group_of(
                dialect.body(each.draft.operation, each.draft.model, each.draft.request)
            )
            for each in self.additions
        }
        self.invariants = Invariants(self.state, self.provider, self.group_of)
        self.facts = {dialect.group("image"): self._prior_facts()} if plan.prior else {}
        self.fact_store = FactStore()

    def _prior_facts(self):
        """Return what the account's earlier jobs have learned of the list."""
        plan, model = self.plan, _MODELS[self.plan.kind]
        witnesses = (
            Witness(
                made.id,
                made.reference,
                model,
                EPOCH + made.at - 1,
                EPOCH + made.at,
                Moment("before", made.at),
                proof="" if plan.trims else proof_of_body(self.spec, made.body),
            )
            for made in self.provider.prior
        )
        shown = ("creation_type", "model_code", *(() if plan.trims else ("ref_prompt",)))
        echo = {(model, field): True for field in shown} if plan.kind == "chanjing" else {}
        return ListRecord(tuple(witnesses), Lag(3, (3.0 if plan.hides else plan.lag) * plan.doubt), 3, echo)

    def time(self):
        """Return the true time in seconds."""
        return self.loop.time() if self.loop is not None else self.now

    def group_of(self, key, ref):
        return ref if self.provider.keeps_references else self._groups[key]

    def note(self, *parts):
        line = f"{self.time():.6f} {' '.join(map(str, parts))}"
        self._hash.update(line.encode("utf-8", "backslashreplace") + b"\n")
        self._tail.append(line)
        self.report.events += 1

    # lives

    def play(self):
        try:
            self._play()
            self._last_checks()
        except InvariantError as broken:
            self.report.violation = str(broken)
        try:
            return self._build_report()
        finally:
            self.invariants.close()

    def _play(self):
        number = 0
        while True:
            life = self.plan.lives[number] if number < len(self.plan.lives) else Life(pause=60.0)
            self._live(life)
            number += 1
            self._between(life)
            if number >= len(self.plan.lives) and self._over(number):
                return

    def _over(self, number):
        if self.final:
            return True
        if self.plan.heals is None:
            return number >= len(self.plan.lives) + 3
        if self.now > self.plan.heals + self.plan.doubt + SOON:
            late = self.now - self.plan.heals
            raise InvariantError(f"LIVENESS: not over {late:.0f} s after the last fault: {self.counts}")
        return False

    def _live(self, life):
        client = Client(self, life)
        loop = SimLoop(self.order, self.now, shuffled=self.plan.shuffled)
        loop.limit = STEPS
        self.loop = loop
        self.provider.life_began = self.now
        self.note("life", life)
        try:
            ended = client.live(loop)
        finally:
            self.now = loop.time()
            client.bury(loop)
            self.loop = None
            loop.close()
        self.report.lives.append(ended)
        self.report.ended.append(self.now)
        self.note("ended", ended)
        if client.violation:
            raise InvariantError(client.violation)

    def _between(self, life):
        """Advance the world while no client runs."""
        self._must(self.invariants.broken())
        if life.torn and (self.state / "journal.jsonl").exists():
            with (self.state / "journal.jsonl").open("ab") as file:
                file.write(b'0badcafe {"t":"id","ref"')
        self.now += life.pause
        self.wall_offset = max(self.wall_offset + life.wall_jump, 10.0 - EPOCH - self.now)  # never before 1970
        if life.reboot:
            self.boot, self.boot_began = f"boot {self.now}", self.now - 20.0
        self._must(self.invariants.broken())

    @property
    def final(self):
        """Return True if nothing is left to do.

        An honest account that has bought before waits for no later task, unless a clock that was set has left it open
        which of two tasks was sent first.
        """
        rows, plan = self.invariants.rows(), self.plan
        undecidable = not (plan.prior and plan.ordered) or plan.hides or any(life.wall_jump for life in plan.lives)
        undecidable = undecidable or plan.lies is not None
        waiting = self.invariants.waiting() if undecidable else 0
        return bool(rows) and sum(row[2] in FINAL for row in rows) + waiting == len(rows)

    @property
    def counts(self):
        return by_state(self.invariants.rows())

    def _last_checks(self):
        self._must(self.invariants.broken())
        if not self.final:
            return
        for check in (self.invariants.journal_agrees, self.invariants.histories_agree):
            self._must(check())
        self._must(self.invariants.files(self.directory))
        before, waiting = len(self.provider.sents), self.invariants.waiting()
        self._live(Life())
        if len(self.provider.sents) != before and not waiting:
            raise InvariantError("I18: a run with nothing to do sent a submit")
        # whatever was still under way arrives, and must have been reckoned with
        self.now += 10 * self.plan.doubt
        self._must(self.invariants.broken())

    def _must(self, broken):
        if broken:
            raise InvariantError(broken)

    def _build_report(self):
        report, provider = self.report, self.provider
        report.trace, report.seconds, report.states = self._hash.hexdigest(), self.now, self.counts
        report.sents, report.made = len(provider.sents), sum(map(len, provider.groups.values()))
        report.last_sent = max((sent.at for sent in provider.sents), default=0.0)
        report.unclear = sum(not sent.clear for sent in provider.sents)
        report.requests, report.tail = provider.requests, list(self._tail)
        return report

    def disk_full(self):
        if self.provider.healed:
            return False
        return any(span.covers(self.time()) for span in self.plan.disk_full)


class InvariantError(Exception):
    """Raised when an invariant does not hold."""


def _additions(plan, spec):
    prints = Fingerprints(Settings({}))
    for prompt in range(plan.prompts):
        request = _request(plan.kind, prompt)
        fingerprint = prints.of(spec.name, "image", _MODELS[plan.kind], request)
        for repeat in range(1, plan.repeat + 1):
            key = hashlib.sha256(f"{prompt} {repeat}".encode()).hexdigest()[:32]
            index = prompt * plan.repeat + repeat
            draft = Draft(key, index, repeat, {}, spec.name, "image", _MODELS[plan.kind], request, f"cat-{index}", 1)
            yield Addition(draft, fingerprint)


class Client:
    """One process: its memory, and every port through which it acts."""

    def __init__(self, world, life):
        self.world, self.life, self.plan = world, life, world.plan
        self.dead = False
        self.violation = None
        self.on_wire = []
        self._reached = Counter()
        self._databases = []
        self._loop = None
        self.signalled_at = None
        self._fetch_dice = random.Random(f"fetch {world.plan.seed} {len(world.report.lives)}")

    # life and death

    def live(self, loop):
        """Run until the end or a kill, and return the kind of end as a word."""
        self._loop = loop
        loop.set_exception_handler(self._unhandled)
        soon = None if self.plan.heals is None else self.plan.heals + self.plan.doubt + SOON - loop.time()
        limit = LONGEST if soon is None else max(600.0, soon)
        loop.call_later(limit, self._too_long)
        if self.life.crash is not None and self.life.crash.at == "time":
            loop.call_later(self.life.crash.count, self._crash_by_time)
        main = loop.create_task(self._main())
        main.add_done_callback(lambda _: loop.stop())
        try:
            with numbered_scopes(), mock.patch.object(anyio, "open_signal_receiver", self._signals):
                loop.run_forever()
        except DeadlockError as deadlock:
            self.violation = f"DEADLOCK: {deadlock}"
            self.dead = True
        if self.dead:
            return "killed"
        return self._ended(main)

    def _ended(self, main):
        error = main.exception()
        if error is None:
            self._check_exit(main.result())
            return f"exit {int(main.result().exit)}"
        if isinstance(error, RunnerError) and error.exit_code == Exit.DISK and self.plan.disk_full:
            return "exit 14"
        self.violation = f"BUG: {type(error).__name__}: {error}"
        return self.violation

    def _check_exit(self, outcome):
        counts, code = self.world.counts, outcome.exit
        broken = self.world.invariants.journal_agrees()
        if broken:
            self.violation = broken
        elif code == Exit.BUG:
            self.violation = f"BUG: {outcome.endings}"
        elif code == Exit.DONE and set(counts) != {"done"}:
            self.violation = f"EXIT: 0 with {counts}"
        elif counts.get("held") and code != Exit.HELD:
            self.violation = f"EXIT: {code} with {counts}"
        elif self.signalled_at is not None and self._late_drain():
            self.violation = f"DRAIN: {self._loop.time() - self.signalled_at:.1f} s after the signal"

    def _late_drain(self):
        slow = self.plan.slow_disk * 8
        return self._loop.time() - self.signalled_at > DRAIN + slow

    def bury(self, loop):
        """Cancel the tasks. No port works any more, so nothing of that has an effect."""
        self.dead = True
        loop.set_exception_handler(lambda *_: None)
        for _ in range(200):
            tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.number)
            if not tasks:
                break
            for task in tasks:
                if inspect.getcoroutinestate(task.get_coro()) != inspect.CORO_CREATED:  # those begin first
                    task.cancel()
            loop.call_soon(loop.stop)
            with contextlib.suppress(DeadlockError), numbered_scopes():
                loop.run_forever()
        for sent in self.on_wire:
            self.world.provider.on_wire[sent.group] -= 1
        for database in self._databases:
            database._conn.close()

    def die(self):
        self.dead = True
        self._loop.stop()

    def fail(self, violation):
        if self.violation is None:
            self.violation = violation
            self.world.note("VIOLATION", violation)
        self.die()
        raise SimCrash

    def gate(self):
        if self.dead:
            raise SimCrash

    def _crash_by_time(self):
        if not self.dead:
            self.world.report.crashes["time"] += 1
            self.world.note("crash", "time")
            self.die()

    def _too_long(self):
        if self.plan.heals is not None and not self.dead:
            self.violation = f"LIVENESS: still running: {self.world.counts}"
        self.die()

    def _unhandled(self, loop, context):
        error = context.get("exception")
        if isinstance(error, SimCrash) or self.dead:
            return
        self.violation = f"BUG: {context.get('message')}: {error!r}"
        self.die()

    def reach_failpoint(self, point):
        """Handle a failpoint of the store or of the world, and crash at the chosen one."""
        self.gate()
        if point == "absent committed":
            broken = self.world.invariants.too_early(self._loop.time(), self.plan.doubt)
            if broken:
                self.fail(broken)
        self._reached[point] += 1
        self._reached[""] += 1
        crash = self.life.crash
        if crash is not None and crash.at in {"", point} and self._reached[crash.at] >= crash.count:
            self.world.report.crashes[point] += 1
            self.world.note("crash", point)
            self.die()
            raise SimCrash

    # the ports

    async def sleep(self, seconds):
        await anyio.sleep(seconds)
        self.gate()

    async def connect(self, path):
        self.gate()
        self._databases.append(Database(self, path))
        return self._databases[-1]

    async def offload(self, function, *args):
        self.gate()
        await asyncio.sleep(0)
        self.gate()
        return function(*args)

    async def send(self, request, permit=None):
        return await self.world.provider.send(self, request, permit)

    async def fetch(self, url, part):
        """Download a file: write its bytes to disk, or fail."""
        self.gate()
        dice, provider = self._fetch_dice, self.world.provider
        fault = provider._rolled(self.plan.fetch)
        if provider._outage() or any(span.covers(self.world.time()) for span in self.plan.files_away):
            fault = "later"
        await self.sleep(dice.uniform(5.0, 300.0) if fault == "slow" else dice.uniform(*self.plan.fetches))
        provider.requests["fetch", provider._outage() is not None, fault in {None, "slow"}] += 1
        self.world.note("fetched", url, fault)
        if fault == "later":
            return RetryLater(TaskError("network", None, "cut"), dice.choice((None, 5.0)))
        if fault == "dead":
            return DeadLink(TaskError("link", None, "403"))
        data = b"image " + url.partition("?")[0].encode()
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        return DownloadedFile(len(data), hashlib.sha256(data).hexdigest(), "image/png", "png")

    def submit_leaves(self, sent):
        """Called when bytes are about to leave."""
        self.reach_failpoint("request leaving")
        broken = self.world.invariants.submit_allowed(sent, self.world.provider.on_wire[sent.group] + 1)
        if broken:
            self.fail(broken)

    @contextlib.contextmanager
    def _signals(self, *_):
        yield self._terms()

    async def _terms(self):
        began = self._loop.time()
        for at in self.life.term:
            await anyio.sleep(max(0.0, began + at - self._loop.time()))
            self.signalled_at = self._loop.time() if self.signalled_at is None else self.signalled_at
            self.world.note("SIGTERM")
            yield signal.SIGTERM
        await anyio.Event().wait()

    # callbacks

    def on_change(self, before, event, after):
        if self.dead:
            return
        world = self.world
        second, waiting = int(world.time()), self.pipeline.session.capacity.backlog.waiting
        world.report.waiting[second] = max(waiting, world.report.waiting.get(second, 0))
        world.note("change", before.ref, before.state, type(event).__name__, after.state, after.remote_id)
        broken = world.invariants.broken() or world.invariants.journal_agrees()
        if broken:
            self.fail(broken)

    def _last_resort(self, task, event):
        if not self.dead:
            self.world.note("last resort", task.ref, type(event).__name__)

    def _bug(self, error):
        if not self.dead:
            self.violation = f"BUG: {error!r}"
            self.die()

    # what it does

    async def _main(self):
        plan, world = self.plan, self.world
        clock = Clock(
            wall=lambda: EPOCH + self._loop.time() + world.wall_offset,
            monotonic=self._loop.time,
            boottime=lambda: self._loop.time() - world.boot_began,
            boot=world.boot,
        )
        store = await Store.open(world.state, connect=self.connect, failpoint=self.reach_failpoint)
        try:
            await store.set_name("simulation")
            await store.add(iter(world.additions), "digest", clock.now())
            provider, notifier = self._pipeline(store, clock)
            await provider.load_facts()
            run = Run(
                [provider] if await store.providers_with_work() else [],
                store=store,
                directory=world.directory,
                clock=clock,
                notifier=notifier,
                deadline=plan.deadline,
                on_bug=self._bug,
            )
            return await run.run()
        finally:
            if not self.dead:
                await store.aclose()

    def _pipeline(self, store, clock):
        plan, spec, notifier = self.plan, self.world.spec, Notifier()
        policy = RetryPolicy(
            paid_timeout=plan.paid,
            max_throttles=plan.throttles,
            quiet_time=plan.doubt,
            can_reconcile=spec.can_reconcile,
            first_poll=spec.first_poll,
        )
        rates = {"submit": plan.rate, "query": plan.query_rate}
        limiters = {name: Limiter(SlidingWindow(rate), self._loop.time, anyio.sleep) for name, rate in rates.items()}
        self.pipeline = pipeline(
            spec,
            self,
            self,
            limiters,
            store=store,
            clock=clock,
            notifier=notifier,
            policy=policy,
            window=plan.window,
            on_change=self.on_change,
            last_resort=self._last_resort,
            failpoint=self.reach_failpoint,
            offload=self.offload,
            submits=8 if spec.can_reconcile else 2,
            most_submits=128 if spec.can_reconcile else 2,
            downloads=4,
            facts=self,
            earlier=EarlierRowsFile(self.world.state),
        )
        return self.pipeline, notifier

    async def load(self, name, _):
        """Return what the account knows of a list, in place of its file."""
        self.gate()
        return self.world.facts.get(name, ListRecord())

    async def save(self, name, record, _):
        self.gate()
        own = tuple(replace(each, exact=False) for each in record.witnesses)  # as they are read back from a file
        self.world.facts[name] = replace(record, witnesses=own)

    def version(self):
        return self.world.fact_store.version()

    async def facts(self, name, now):
        self.gate()
        return await self.world.fact_store.facts(name, now)

    async def record(self, name, *facts):
        self.gate()
        await self.world.fact_store.record(name, *facts)


class Database:
    """The connection of aiosqlite without its thread."""

    def __init__(self, client, path):
        self._client = client
        self._conn = sqlite3.connect(path, isolation_level=None, cached_statements=256, factory=Connection)
        self._conn.world = client.world
        self._conn.ballast = path.parent / "ballast"
        self._conn.create_function("randomblob", 1, client.world.dice.randbytes)

    async def _execute(self, function, *args):
        self._client.gate()
        slow = self._client.plan.slow_disk
        await asyncio.sleep(self._client.world.dice.random() * slow if slow else 0)
        self._client.gate()
        return function(*args)

    async def close(self):
        self._conn.close()


_WRITES = ("insert", "update", "delete", "commit")


class Connection(sqlite3.Connection):
    """SQLite on a disk that may be full, where a few writes succeed once the ballast is released."""

    world = None
    ballast = None
    _writes_left = 6

    def execute(self, sql, *args):
        if self.world.plan.disk_full and sql.startswith(_WRITES) and self.world.disk_full() and self._is_full():
            raise sqlite3.OperationalError("database or disk is full")
        return super().execute(sql, *args)

    def _is_full(self):
        if self.ballast.exists():
            return self.world.dice.random() < 0.5
        self._writes_left -= 1
        return self._writes_left < 0
