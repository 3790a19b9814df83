"""One provider's part of a run: how it is asked, how far it is trusted, and how a task of it is settled."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import anyio
import anyio.to_thread

from runner.lifecycle.events import Accepted, Finished, Found, Interrupted, Missing, Refused, Setback
from runner.lifecycle.task import Fault, State
from runner.lifecycle.transitions import advance
from runner.pipeline.breaker import LONGEST_PROBE, Breaker
from runner.pipeline.crowd import Crowd
from runner.pipeline.looks import CALM, EAGER, Bounds, Looks
from runner.pipeline.skew import APART, FAR, refused, said, skew
from runner.providers.evidence import is_good, judge, server_time
from runner.providers.exchange import NotSent, Reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from runner.lifecycle.events import BlockKind, Event
    from runner.lifecycle.patience import Patience
    from runner.lifecycle.task import Task
    from runner.net.download import Downloader
    from runner.net.limiter import Limiter, Permit, Window
    from runner.net.space import Space
    from runner.pipeline.attach import Attach
    from runner.pipeline.bell import Bell
    from runner.pipeline.clock import Clock
    from runner.providers.dialect import Dialect
    from runner.providers.exchange import Outcome, Request
    from runner.providers.spec import Spec
    from runner.store.claims import Claims
    from runner.store.store import Settled, Store

_BLOCKING: dict[str, BlockKind] = {
    "credentials": "credentials",
    "credit": "credit",
    "account": "account",
    "configuration": "configuration",
}
_WINDOWED = {State.SUBMITTING, State.IN_DOUBT, State.RUNNING}
#: refusals in a row after which a manifest counts as poisoned
_POISONED = 20
#: consecutive probes without any answer ever before a run gives up on a host it has never reached
_NEVER_REACHED = 4


class Sender(Protocol):
    """What carries requests; `net.gateway.Gateway` is the one."""

    async def send(self, request: Request, permit: Permit | None = None) -> Outcome: ...


@dataclass
class Lane:
    """One provider in one run; `on_change(before, event, after)` hears of every settled change."""

    spec: Spec
    dialect: Dialect
    gateway: Sender
    downloader: Downloader
    limiters: Mapping[str, Limiter]
    window: Window
    patience: Patience
    store: Store
    clock: Clock
    bell: Bell
    on_change: Callable[[Task, Event, Task], None]
    #: hears of an answer that could not be written down: the last resort against losing an id (I3)
    emergency: Callable[[Task, Event], None]
    #: hears of the named points that a crash campaign strikes at
    reach: Callable[[str], None] = lambda _: None
    #: runs a blocking function off the event loop
    offload: Callable[..., Awaitable[Any]] = anyio.to_thread.run_sync
    #: what the account's other jobs hold, where the provider keeps no reference of ours
    claims: Claims | None = None
    #: how local pictures get into requests, where the provider takes some
    attach: Attach | None = None
    #: what the job may cost, in the provider's unit
    max_cost: float | None = None
    #: counts a cost against what the account may spend in the day of that time; False: it is too much
    spend: Callable[[float, float], Awaitable[bool]] | None = None
    hands: int = 8
    downloads: int = 4
    breaker: Breaker = field(default_factory=Breaker)
    #: why nothing more is submitted in this run
    blocked: tuple[BlockKind, Fault] | None = None
    #: nothing at all can be asked any more in this run
    dead: bool = False
    #: the host was never reached
    unreachable: bool = False
    #: a request of this run was answered properly
    proved: bool = False
    #: requests are signed by our clock
    signs: bool = False
    #: seconds by which the provider's clock is ahead of ours, by its latest answer
    ahead: float = 0.0
    #: slots of the account's window that this job's tasks take, and how many of these are of submits on the wire
    running: int = 0
    sending: int = 0
    #: how often there was no slot for us although none was ours
    crowd: Crowd = field(default_factory=Crowd)
    #: whether other jobs of ours are at the account now
    has_company: Callable[[], bool] = lambda: False
    #: tasks of this job that wait for their download
    ready: int = 0
    #: room for downloads; None: nobody looks
    space: Space | None = None
    #: no download fits on the disk any more: what is ready waits for the next run
    full: bool = False
    #: hears in words of what a person should know
    notice: Callable[[str], None] = lambda _: None
    _silence: str = ""
    _alarmed: bool = False
    #: refused in a row: at once, and after they were accepted
    _refusals: int = 0
    _failures: int = 0
    #: when this run counted a task against the account's day; what another run counted is not given back
    _counted: dict[int, float] = field(default_factory=dict)
    _first: anyio.Lock = field(default_factory=anyio.Lock)
    #: what was learned of when tasks end
    looks: Looks = field(init=False)

    def __post_init__(self) -> None:
        many, shared = self.spec.query.many, self.limiters["query"] is self.limiters["submit"]
        bounds = Bounds(self.patience.first_look, self.spec.longest_look, many.max if many else 1, shared=shared)
        self.looks = Looks(bounds, self.clock.now())

    @property
    def name(self) -> str:
        return self.spec.name

    async def send(self, request: Request, permit: Permit | None = None) -> Outcome:
        """Carry a request; until one was answered properly they go one by one, so that a wrong key costs one."""
        if self.proved:
            return await self._carry(request, permit)
        async with self._first:
            return await self._carry(request, permit)

    async def compare_clocks(self) -> None:
        """Before anything is bought with a signature by our clock, see if it is right; free of charge (FC2)."""
        if self.signs and not self.proved and self.blocked is None:
            await self.send(self.dialect.probe())

    async def _carry(self, request: Request, permit: Permit | None) -> Outcome:
        with permit or await self.limiters[request.endpoint].acquire() as held:
            if self.dead:
                return NotSent("the provider refused this run's credentials or address")
            begun = self.clock.wall()
            outcome = await self.gateway.send(request, held)
        if isinstance(outcome, Reply) and (theirs := server_time(outcome)) is not None:
            self.ahead = theirs - self.clock.now()
            self._compare(skew(theirs, begun, self.clock.wall()))
        self._learn(request, outcome, held)
        return outcome

    def _compare(self, ahead: float) -> None:
        """Tell of a wrong clock once in a run; where it signs and nothing was bought yet, nothing is (FC2)."""
        if self.signs and abs(ahead) > FAR and not self.proved and self.blocked is None:
            # without `block`, which stops questions as well: those are signed by the server's time, as it is known now
            self.blocked = ("configuration", Fault("clock", None, refused(self.name, ahead)))
            self.bell.ring("idle")
        elif abs(ahead) > APART and not self.clock.told:
            self.clock.told = True
            self.notice(said(self.name, ahead))

    def _learn(self, request: Request, outcome: Outcome, permit: Permit) -> None:
        phase: Literal["submit", "query"] = "submit" if request.phase == "submit" else "query"
        if is_good(self.spec, outcome, phase):
            self.breaker.answered(properly=True)
            self.proved = True
            return
        verdict = judge(self.spec, outcome, phase)
        good = isinstance(outcome, Reply) and outcome.status < 500 and not isinstance(outcome.body, str)  # noqa: PLR2004
        self.breaker.answered(properly=good)
        if not good:
            self._silence = verdict.fault.message or verdict.fault.reason or ""
        if verdict.meaning in _BLOCKING:
            self.block(_BLOCKING[verdict.meaning], verdict.fault, asked=phase == "query")
        elif good:
            self.proved = True
        if verdict.meaning == "throttled":
            permit.throttled(verdict.wait)
        if verdict.meaning == "window":
            self._full(verdict.fault)

    def _full(self, fault: Fault) -> None:
        """No slot is free, the provider says: ours must end first, or somebody else's."""
        if self.window.most is not None and self.running <= self.window.most:
            self._alarm(fault)
        self.window.shrink(self.running - 1)  # the refused one counts among those running until it is settled
        if self.running > self.sending:
            return
        self.crowd.refused(self.clock.now())
        if self.crowd.hopeless and not self.has_company():
            said = f"no slot is free ({fault.code}), though nothing of this job runs: somebody else has them, or tasks"
            self.block("window", replace(fault, message=f"{said} that were lost; `runner audit` looks for those"))

    def _alarm(self, fault: Fault) -> None:
        if not self._alarmed:
            self._alarmed = True
            ours = f"{self.running - 1} of limits.in_flight {self.window.most}"
            self.notice(
                f"{self.name} says that no slot is free ({fault.code}), and this job has {ours}: another program has "
                f"slots of the account, or tasks that were lost, which `runner audit` looks for"
            )

    @property
    def room(self) -> int:
        """How many slots are free; any number where there is no window, or nothing runs that could make room."""
        room = self.window.room(self.running)
        return 2**31 if room is None or self.running <= 0 else room

    async def afford(self, task: Task) -> bool:
        """Count a task that is about to be sent against the account's day; False stops submits."""
        if self.claims is not None:
            self.claims.check()
        if self.spend is None:
            return True
        at = self.clock.now()
        if task.cost is not None and await self.spend(task.cost, at):
            self._counted[task.id] = at
            return True
        why = "has no price" if task.cost is None else f"costs {task.cost:g} {self.spec.unit}"
        said = f"the account's limit for a day is reached: the next task {why}"
        self.block("cost", Fault("daily_cost", None, said))
        return False

    async def _give_back(self, before: Task, after: Task) -> None:
        """To the day that it was counted in, or another would cost more than it may."""
        at = self._counted.get(before.id)
        if after.state not in _WINDOWED:
            self._counted.pop(before.id, None)
        if self.spend is not None and at is not None and after.spent < before.spent:
            await self.spend(after.spent - before.spent, at)

    async def too_dear(self) -> None:
        """The next task costs more than is left: a pause, not a failure."""
        spent = await self.store.spent()
        said = f"max_cost {self.max_cost:g} {self.spec.unit} leaves no room for the next task: {spent:g} spent"
        self.block("cost", Fault("max_cost", None, said))

    def has_space(self, more: int) -> bool:
        """Whether what is paid and not here yet will fit on the disk, and so many more."""
        return self.space is None or self.space.has_room(max(0, self.running) + max(0, self.ready) + more)

    def fill(self) -> None:
        """The disk is full: nothing more is bought or fetched; what is paid is still asked about (FD2)."""
        self.full = True
        said = self.space.shortage() if self.space else "the disk is full"
        self.blocked = ("disk", Fault("disk", None, said))
        self.bell.ring("idle")

    def block(self, kind: BlockKind, fault: Fault, *, asked: bool = False) -> None:
        """Stop submits; where even asking is refused, stop everything of this provider."""
        self.blocked = self.blocked or (kind, fault)
        if kind in {"credentials", "configuration"} or (asked and kind == "account"):
            self.dead = True
        self.bell.ring("idle")

    async def settle(self, before: Task, event: Event) -> Task | None:
        """Decide, write, tell; None where the row had moved on. A taken id puts a submit in doubt (R6)."""
        if self.claims is not None and not await self._claim(self.claims, before, event):
            return await self._clash(before, event)
        after = advance(before, event, self.clock.now(), self._patience_with(before, event))
        settled = await self.store.settle(before, after)
        if settled == "clash":
            return await self._clash(before, event)
        return await self._told(before, event, after, settled)

    def _patience_with(self, task: Task, event: Event) -> Patience:
        """The lane's patience, with the first look where it is worth one."""
        if not isinstance(event, Accepted):
            return self.patience
        haste = EAGER if self.looks.is_full(self.running, self.window.size) else CALM
        return replace(self.patience, first_look=self.looks.first(task.operation, task.model, haste))

    async def _claim(self, claims: Claims, task: Task, event: Event) -> bool:
        """Make an id this job's among all jobs of the account; False where another job has it."""
        match event:
            case Accepted(remote_id):
                return await claims.given(remote_id)
            case Found(remote_id):
                return await claims.take(remote_id)
            case Interrupted() if task.sent is not None:
                await claims.doubt(task.ref, task.fingerprint, task.sent)
        return True

    async def _clash(self, before: Task, event: Event) -> Task | None:
        match event:
            case Accepted(remote_id):
                return await self.settle(before, Interrupted(f"the id {remote_id} belongs to another task already"))
            case _:
                fault = Fault("taken", None, "the task that was found belongs to another task already")
                return await self.settle(before, Setback("trouble", fault))

    async def _told(self, before: Task, event: Event, after: Task, settled: Settled) -> Task | None:
        if settled != "done":
            if isinstance(event, Accepted):  # a later run has taken the job over: this id would be on no record
                self.emergency(before, event)
            return None
        await self._give_back(before, after)
        self._count(before, after)
        self._notice(before, event, after)
        # before anybody hears of it: a bug in a hook must not leave the next stage asleep (FP14)
        self.bell.ring((self.name, after.state))
        self.bell.ring("idle")
        self.on_change(before, event, after)
        return after

    def claimed(self, before: Task, event: Event, after: Task) -> None:
        """Tell of a claim that the store has written already."""
        self._count(before, after)
        self.on_change(before, event, after)

    def _count(self, before: Task, after: Task) -> None:
        entered = (after.state in _WINDOWED) - (before.state in _WINDOWED)
        self.running += entered * after.slots
        self.sending += ((after.state is State.SUBMITTING) - (before.state is State.SUBMITTING)) * after.slots
        self.ready += (after.state is State.READY) - (before.state is State.READY)
        if entered < 0:
            self.bell.ring((self.name, State.QUEUED))
        if before.state is State.RUNNING and after.state is not State.RUNNING:
            self.window.completed()

    def _refused(self, fault: Fault, *, at_once: bool) -> None:
        """A manifest whose every prompt is refused is a mistake, and may cost the account (FV11)."""
        self._refusals += at_once
        self._failures += not at_once
        if max(self._refusals, self._failures) >= _POISONED:
            said = f"{_POISONED} in a row were refused ({fault.reason}: {fault.message}); the rest was not sent"
            self.block("refusals", Fault("refusals", None, said))

    def _notice(self, before: Task, event: Event, after: Task) -> None:
        match event:
            case Accepted() | Interrupted():
                self._refusals = 0
                self.crowd.accepted()
                self.breaker.submitted(doubtful=isinstance(event, Interrupted))
            case Found():
                self.breaker.settled()
            case Refused():
                self._refused(after.fault, at_once=before.state is State.SUBMITTING)
            case Finished():
                self._failures = 0
            case Missing() if after.state is State.QUEUED:
                self.breaker.settled()
            case _:
                pass

    async def probe(self) -> None:
        """While nobody answers, ask something free of charge at growing intervals; for as long as there is hope."""
        reached = False
        while not self.dead:
            await self.breaker.until_outage()
            self.notice(f"{self.name} does not answer ({self._silence}); it is asked again now and then")
            await self._probe_until_answered(first=not (self.proved or reached))
            reached = True
            if not self.dead:
                self.notice(f"{self.name} answers again")

    async def _probe_until_answered(self, *, first: bool) -> None:
        tries, asked = 0, anyio.current_time()
        while self.breaker.outage and not self.dead:
            # from question to question: one that nobody answered has waited long enough already
            await anyio.sleep(max(1.0, asked + min(LONGEST_PROBE, 2.0**tries) - anyio.current_time()))
            asked = anyio.current_time()
            request = self.dialect.probe()
            permit = await self.limiters[request.endpoint].acquire()
            await self._carry(request, permit)
            tries += 1
            if first and tries >= _NEVER_REACHED and self.breaker.outage:
                self.unreachable = self.dead = True
                self.breaker.give_up()
                self.bell.ring("idle")

    async def put_aside(self, tasks: Sequence[Task]) -> None:
        """Let tasks rest until the next run, and wake every stage: some may have been settled before the bug struck."""
        for task in tasks:
            await self.store.settle(task, replace(task, due_at=None))
        for state in State:
            self.bell.ring((self.name, state))
        self.bell.ring("idle")
