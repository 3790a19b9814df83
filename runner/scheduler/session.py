"""Connection state of one provider during a run: how it answers, and whether it may be asked more."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import anyio
import orjson

from runner.providers.requests import NotSent, Reply
from runner.providers.responses import classify_response, is_busy, is_success, proof_of_body, server_time
from runner.providers.web_page import read_web_page
from runner.scheduler.clock import SKEW_LIMIT, SKEW_WARNING, clock_skew, skew_refusal, skew_warning
from runner.scheduler.list_facts import ListFacts
from runner.scheduler.refusals import Refusals
from runner.tasks.events import Accepted, Finished, Found, Interrupted, Missing, Rejected, Suspected
from runner.tasks.list_record import FEWEST_WITNESSES, EarlierRows, Witness
from runner.tasks.models import State, TaskError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from runner.providers.requests import Dialect, Outcome, Request
    from runner.providers.spec import Spec
    from runner.ratelimit.limiter import Limiter, Permit
    from runner.scheduler.capacity import Capacity
    from runner.scheduler.clock import Clock
    from runner.scheduler.stage import Notifier
    from runner.tasks.events import BlockKind, Event
    from runner.tasks.models import Task

_BLOCKING: dict[str, BlockKind] = {
    "credentials": "credentials",
    "credit": "credit",
    "account": "account",
    "configuration": "configuration",
}
#: refusals in a row after which the manifest itself is taken to be wrong
_MOST_REFUSALS = 20
#: probes in a row without an answer after which a run gives up on a host that it has never reached
_UNREACHABLE_AFTER = 4
#: seconds between two probes, at most
_LONGEST_PROBE = 30.0
#: submits in a row, or a share of the last ones, without a clear answer after which submits stop
_DOUBTS_IN_A_ROW, _RECENT, _DOUBTFUL_SHARE = 3, 40, 0.05
#: the share of the last submits that may be answered with "busy", where that leaves a doubt
_BUSY_SHARE = 1 / 3
#: doubtful tasks of a run that its closing reading is about
_MOST_DOUBTED = 200
#: requests in a row without a proper answer that make an outage
_OUTAGE = 5


class CircuitBreaker:
    """Stops submits while doubts pile up, and every request but a probe during an outage.

    Three doubtful submits in a row, or more than 5 % of the last 40, stop submits until one doubt is settled. Five
    requests in a row without a proper answer are an outage.

    A whole answer that says "busy" is a doubt as well, but its path works: submits go on one by one after the pause
    that it asks for, and stop after three pauses in a row, or if more than a third of the last 40 were answered so.
    """

    def __init__(self) -> None:
        self._doubts: deque[bool] = deque(maxlen=_RECENT)
        self._doubts_in_a_row = 0
        self._busy: deque[bool] = deque(maxlen=_RECENT)
        #: pauses in a row, and when the latest one began, seconds since the epoch
        self._pauses, self._paused_at = 0, -math.inf
        self._unanswered = 0
        self._gave_up = False
        self._witness_admitted = False
        self._changed = anyio.Event()

    @property
    def doubtful(self) -> bool:
        """Return True while submits must stop: too many of them ended without a clear answer."""
        limit = max(_DOUBTS_IN_A_ROW - 1, _DOUBTFUL_SHARE * _RECENT)
        if self._witness_admitted:
            return False
        is_too_busy = self._pauses >= _DOUBTS_IN_A_ROW or sum(self._busy) > _BUSY_SHARE * _RECENT
        return is_too_busy or self._doubts_in_a_row >= _DOUBTS_IN_A_ROW or sum(self._doubts) > limit

    @property
    def paused(self) -> bool:
        """Return True after an answer that said "busy", until a submit is accepted."""
        return self._pauses > 0

    @property
    def admits_witness(self) -> bool:
        """Return True while one submit may go out as a witness, although too many are in doubt."""
        return self._witness_admitted

    @property
    def outage(self) -> bool:
        """Return True while the provider does not answer, so that only a probe may go out."""
        return self._unanswered >= _OUTAGE and not self._gave_up

    def record_submit(self, *, doubtful: bool) -> None:
        """Count a submit that ended, with or without a clear answer."""
        self._doubts.append(doubtful)
        self._busy.append(False)
        self._doubts_in_a_row = self._doubts_in_a_row + 1 if doubtful else 0
        self._pauses = self._pauses if doubtful else 0
        self._notify()

    def record_busy(self, claimed_at: float, now: float) -> None:
        """Count a submit that was answered with "busy". One claimed before the latest such answer is of its pause."""
        self._doubts.append(False)
        self._busy.append(True)
        self._pauses += claimed_at > self._paused_at
        self._paused_at = now
        self._notify()

    def record_settled_doubt(self) -> None:
        """Reset the count of doubts: one was settled, so the path to the provider works."""
        self._doubts.clear()
        self._busy.clear()
        self._doubts_in_a_row = self._pauses = 0
        self._notify()

    def admit_witness(self) -> None:
        """Let one submit out: without a task that is accepted later no doubt can be settled."""
        self._witness_admitted = True
        self._notify()

    def end_admission(self) -> None:
        """Close again after the submit that was let out."""
        self._witness_admitted = False

    def record_answer(self, *, proper: bool) -> None:
        """Count a request that got a proper answer, or none."""
        self._unanswered = 0 if proper else self._unanswered + 1
        self._notify()

    def give_up(self) -> None:
        """Release all waiters: the provider will not answer in this run."""
        self._gave_up = True
        self._notify()

    async def until_answering(self) -> None:
        """Wait for the end of an outage."""
        while self.outage:
            await self._changed.wait()

    async def until_safe(self) -> None:
        """Wait until a submit may go out."""
        while self.outage or self.doubtful:
            await self._changed.wait()

    async def until_outage(self) -> None:
        """Wait for the beginning of an outage."""
        while not self.outage:
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class Sender(Protocol):
    """Carries requests, as `net.client.Gateway` does."""

    async def send(self, request: Request, permit: Permit | None = None) -> Outcome: ...


@dataclass
class ProviderSession:
    """Sends the requests of one provider and keeps what its answers say about its health."""

    spec: Spec
    dialect: Dialect
    client: Sender
    limiters: Mapping[str, Limiter]
    capacity: Capacity
    clock: Clock
    notifier: Notifier
    #: requests are signed by our clock
    signs_requests: bool = False
    on_warning: Callable[[str], None] = lambda _: None
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    #: why nothing more is submitted in this run
    blocked: tuple[BlockKind, TaskError] | None = None
    #: why this state may not be the newest, so that another may buy the same; empty: it is
    fence: str = ""
    #: asked before each purchase; raises a fence and returns False if what the account shares is gone
    may_claim: Callable[[], bool] = lambda: True
    #: asked once an answer is a web page: returns True if the account's jobs have ever had a task accepted there
    has_bought: Callable[[], Awaitable[bool]] | None = None
    #: operations of which a task of this job was ever accepted
    sold: set[str] = field(default_factory=set)
    #: no request of any kind is sent any more in this run
    dead: bool = False
    #: the host was never reached
    unreachable: bool = False
    #: a request of this run got a proper answer
    proved: bool = False
    #: submits go on, as far as this run is concerned
    may_submit: bool = True
    #: seconds by which the provider's clock is ahead of ours, by its latest answer
    ahead: float = 0.0
    #: quiet time after a doubtful send, seconds
    quiet_time: float = 300.0
    #: tasks that were in doubt in this run, as they were then; the first ones, if there are many
    doubted: dict[int, Task] = field(default_factory=dict)
    #: what stood in each list before this job, by the group of operations that it holds
    earlier: dict[str, EarlierRows] = field(default_factory=dict)
    #: what readings of each list have shown, by the group of operations that it holds
    lists: dict[str, ListFacts] = field(default_factory=dict)
    _last_silence: str = ""
    #: refusals in a row: of submits, and of tasks after they were accepted
    _refused_submits: int = 0
    _refused_tasks: int = 0
    _first: anyio.Lock = field(default_factory=anyio.Lock)
    #: the cap leaves no room while suspects count as spent
    waits_for_refund: bool = False
    #: what is known of this account's refusals
    refusals: Refusals = field(init=False)

    def __post_init__(self) -> None:
        """Prepare what is known of refusals: nothing, until the account's facts are bound."""
        can_look_up = self.spec.can_reconcile and self.spec.reconcile.listing is not None
        groups = {name: self.dialect.group(name) for name in self.spec.operations} if can_look_up else {}
        self.refusals = Refusals(self.spec.name, groups, self.clock.now, self.on_warning)

    @property
    def name(self) -> str:
        """Return the provider's name."""
        return self.spec.name

    async def send(self, request: Request, permit: Permit | None = None) -> Outcome:
        """Send a request. Until one got a proper answer they go one by one, so that a wrong key costs one request."""
        if self.proved:
            return await self._send(request, permit)
        async with self._first:
            return await self._send(request, permit)

    @property
    def has_witnesses(self) -> bool:
        """Return True if the list, if there is one, has tasks of ours by which a lost answer can be judged."""
        return self.spec.reconcile.listing is None or any(
            len(facts) >= FEWEST_WITNESSES for facts in self.lists.values()
        )

    def facts_of(self, operation: str) -> ListFacts:
        """Return the facts about the list that holds an operation's tasks."""
        group, listing = self.dialect.group(operation), self.spec.reconcile.listing
        if group not in self.lists:
            self.lists[group] = ListFacts(
                operation,
                self.quiet_time,
                by_reference=listing is not None and listing.reference is not None,
                proof=listing.proof if listing is not None and listing.reference is None else (),
                on_contradiction=lambda: self.notifier.notify((self.name, "contradiction")),
            )
        return self.lists[group]

    async def compare_clocks(self) -> None:
        """Check our clock with a free request before anything is bought with a signature that it dates."""
        if self.signs_requests and not self.proved and self.blocked is None:
            await self.send(self.dialect.probe())

    async def check_address(self, outcome: Outcome) -> TaskError | None:
        """Return why a submit went to an address that is none of an API, so that nothing was accepted; else None.

        It is so only if this host has never given a valid answer, and the answer can only come from a server of web
        pages; or it is a page or a redirect of any kind, and a free question is answered in the same way. Then nothing
        more is sent there in this run.
        """
        page = read_web_page(outcome)
        if page is None or self.proved or self.blocked is not None:
            return None
        if self.has_bought is None or await self.has_bought():
            return None
        if not page.is_refusal and (read_web_page(await self.send(self.dialect.probe())) is None or self.proved):
            return None
        why = f"the address answers with {page.text}, and has never answered as an API: nothing was bought"
        advice = f"set {self.spec.env}_BASE_URL to the API's own address, which `runner doctor` tries"
        error = TaskError("configuration", None, f"{why}; {advice}")
        self.block("configuration", error)
        return error

    def contradicts_sales(self, operation: str, meaning: str, outcome: Outcome) -> bool:
        """Return whether a text, or no body, blocks the account at an address that has accepted tasks of an operation.

        The API's own form says so in JSON; a page is as likely from a proxy, which may have passed the request on.
        """
        path = self.spec.operations[operation].path if operation else ""
        has_sold = any(self.spec.operations[name].path == path for name in self.sold)
        is_page = isinstance(outcome, Reply) and not isinstance(outcome.body, dict | list)
        return meaning in _BLOCKING and has_sold and is_page

    def admit_witness(self, facts: ListFacts, sent_at: float) -> bool:
        """Let one submit out as a witness where too many doubts stop submits. Return False if none can go.

        `sent_at` is the time of a doubtful send on the boot clock, whose quiet time has passed.
        """
        if not self.breaker.doubtful or self.blocked or not self.may_submit:
            return False
        quiet_since, boot = sent_at + facts.quiet_time, self.clock.boot
        if any(each.answered.boot == boot and each.claimed_seconds >= quiet_since for each in facts):
            return False  # there is one, which the list has yet to show
        self.breaker.admit_witness()
        return True

    def block(self, kind: BlockKind, error: TaskError, *, on_query: bool = False) -> None:
        """Stop submits. Stop every request where queries are refused as well."""
        self.blocked = self.blocked or (kind, error)
        if kind in {"credentials", "configuration"} or (on_query and kind == "account"):
            self.dead = True
        self.notifier.notify("idle")

    def block_distrusted(self) -> None:
        """Stop submits: the provider differs from its documents in so many ways that nothing is believed any more."""
        message = (
            "three things that its documents say were contradicted within a day, so nothing more is bought there. "
            "`--trust-less` goes on, and leaves every lost answer to you, and every refusal that is not known to cost "
            "nothing"
        )
        self.block("distrust", TaskError("distrust", None, message))

    def block_disk(self) -> None:
        """Stop submits and downloads, whatever else stopped submits before: the disk is full."""
        self.blocked = ("disk", self.capacity.fill_disk())
        self.notifier.notify("idle")

    def raise_fence(self, why: str, kind: BlockKind = "state") -> None:
        """Buy nothing and believe no absence in this run, since this state may not be the newest one.

        What is paid for is polled, looked up and downloaded all the same.
        """
        self.fence = self.fence or why
        self.blocked = (kind, TaskError("state", None, self.fence))
        self.notifier.notify("idle")

    async def probe(self) -> None:
        """During each outage, send a free request at growing intervals until an answer comes or there is no hope."""
        reached = False
        while not self.dead:
            await self.breaker.until_outage()
            self.on_warning(f"{self.name} does not answer ({self._last_silence}); it is asked again now and then")
            await self._probe_until_answered(first=not (self.proved or reached))
            reached = True
            if not self.dead:
                self.on_warning(f"{self.name} answers again")

    def record(self, before: Task, event: Event, after: Task) -> None:
        """Update breaker, contention and counts of refusals after a committed transition."""
        if (
            isinstance(event, Interrupted | Found | Missing)
            and not before.is_suspect
            and len(self.doubted) < _MOST_DOUBTED
        ):
            self.doubted[before.id] = before
        if before.is_suspect and (after.state is not State.IN_DOUBT or after.due_at is None):
            if self.refusals.settle_suspect(before) and after.state is State.FAILED:
                self._count_refusal(after, at_submit=True)
            self.waits_for_refund = False
            self.notifier.notify((self.name, State.QUEUED))
        match event:
            case Accepted() | Interrupted() if before.state is not State.QUEUED:
                if isinstance(event, Accepted):
                    self._add_witness(before, event.remote_id)
                    self.refusals.record_accepted()
                    self.sold.add(before.operation)
                self._refused_submits = 0
                self.capacity.contention.reset()
                if isinstance(event, Interrupted) and event.is_busy:
                    now = self.clock.now()
                    self.breaker.record_busy(before.submitted_at or now, now)
                elif isinstance(event, Interrupted) and event.process_ended and after.state is State.HELD:
                    pass  # no lookup can settle it, so that all submits of this run would wait in vain
                else:
                    self.breaker.record_submit(doubtful=isinstance(event, Interrupted))
            case Suspected():
                # neither a doubt nor a refusal until it has been looked up
                self.refusals.add_suspect(before)
            case Missing() | Found() if before.is_suspect:
                pass
            case Found():
                self.breaker.record_settled_doubt()
            case Rejected():
                self._count_refusal(after, at_submit=before.state is State.SUBMITTING)
            case Finished():
                self._refused_tasks = 0
            case Missing() if after.state is State.QUEUED:
                self.breaker.record_settled_doubt()
            case _:
                pass

    def _count_refusal(self, task: Task, *, at_submit: bool) -> None:
        """Count a refused submit, or a task that failed, and stop submits after many in a row."""
        self._refused_submits += at_submit
        self._refused_tasks += not at_submit
        if max(self._refused_submits, self._refused_tasks) >= _MOST_REFUSALS:
            # a manifest whose every prompt is refused is wrong as a whole, and may cost the account
            reason = f"{task.error.reason}: {task.error.message}"
            message = f"{_MOST_REFUSALS} in a row were refused ({reason}); the rest was not sent"
            self.block("refusals", TaskError("refusals", None, message))

    def _add_witness(self, task: Task, remote_id: str) -> None:
        """Remember an accepted task, which the provider's list must show from now on."""
        if self.spec.reconcile.listing is not None and task.sent is not None:
            answered = self.clock.at(task.sent)
            claimed = min(task.submitted_at or answered, answered)
            self.facts_of(task.operation).add(
                Witness(
                    remote_id,
                    task.ref,
                    task.model,
                    claimed,
                    answered,
                    task.sent,
                    task.key,
                    exact=True,
                    proof=self._proof_of(task),
                )
            )
            self.notifier.notify((self.name, "witness"))

    def _proof_of(self, task: Task) -> str:
        if not task.request:
            return ""
        return proof_of_body(self.spec, self.dialect.body(task.operation, task.model, orjson.loads(task.request)))

    async def _send(self, request: Request, permit: Permit | None) -> Outcome:
        with permit or await self.limiters[request.endpoint].acquire() as held:
            if self.dead:
                return NotSent("the provider refused this run's credentials or address")
            begun = self.clock.wall()
            outcome = await self.client.send(request, held)
        if isinstance(outcome, Reply) and (theirs := server_time(outcome)) is not None:
            self.ahead = theirs - self.clock.now()
            self._check_skew(clock_skew(theirs, begun, self.clock.wall()))
        self._update_health(request, outcome, held)
        return outcome

    def _check_skew(self, skew: float) -> None:
        """Warn of a wrong clock once in a run. Where it signs requests and nothing was bought yet, stop submits."""
        if self.signs_requests and abs(skew) > SKEW_LIMIT and not self.proved and self.blocked is None:
            # without `block`, which stops queries as well: those are signed by the server's time, which is known now
            self.blocked = ("configuration", TaskError("clock", None, skew_refusal(self.name, skew)))
            self.notifier.notify("idle")
        elif abs(skew) > SKEW_WARNING and not self.clock.skew_reported:
            self.clock.skew_reported = True
            self.on_warning(skew_warning(self.name, skew))

    def _update_health(self, request: Request, outcome: Outcome, permit: Permit) -> None:
        phase: Literal["submit", "query"] = "submit" if request.phase == "submit" else "query"
        if is_success(self.spec, outcome, phase):
            self.breaker.record_answer(proper=True)
            self.proved = True
            return
        verdict = classify_response(self.spec, outcome, phase)
        proper = isinstance(outcome, Reply) and outcome.status < 500 and not isinstance(outcome.body, str)  # noqa: PLR2004
        self.breaker.record_answer(proper=proper)
        if not proper:
            self._last_silence = verdict.error.message or verdict.error.reason or ""
        operation = next((name for name, each in self.spec.operations.items() if each.path == request.path), "")
        if phase == "submit" and self.contradicts_sales(operation, verdict.meaning, outcome):
            pass  # a doubt about one task, and no reason to leave what is bought
        elif verdict.meaning in _BLOCKING:
            self.block(_BLOCKING[verdict.meaning], verdict.error, on_query=phase == "query")
        elif proper:
            self.proved = True
        if verdict.meaning == "throttled" or (phase == "submit" and is_busy(outcome)):
            permit.throttled(verdict.wait)
        if verdict.meaning == "window":
            reason = self.capacity.refuse(verdict.error, self.clock.now())
            if reason is not None:
                self.block("window", reason)

    async def _probe_until_answered(self, *, first: bool) -> None:
        tries, asked = 0, anyio.current_time()
        while self.breaker.outage and not self.dead:
            # counted from probe to probe: one without an answer has waited long enough already
            await anyio.sleep(max(1.0, asked + min(_LONGEST_PROBE, 2.0**tries) - anyio.current_time()))
            asked = anyio.current_time()
            request = self.dialect.probe()
            permit = await self.limiters[request.endpoint].acquire()
            await self._send(request, permit)
            tries += 1
            if first and tries >= _UNREACHABLE_AFTER and self.breaker.outage:
                self.unreachable = self.dead = True
                self.breaker.give_up()
                self.notifier.notify("idle")
