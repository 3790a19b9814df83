"""`probe`: measure on a real account what runs cannot measure for free.

A probe is a job in the account's directory, with a store of its own. Every paid request is a row, journaled before it
leaves, and sent once. A probe that was killed or interrupted goes on at the next start, with what it has.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from runner.app import provider_config
from runner.app.job_registry import mark_finished, record_while_running, register_run
from runner.app.probe_measure import Measured, Measurement, is_paid
from runner.app.probe_plan import PICTURES, make_job
from runner.app.probe_purchases import Purchases
from runner.app.probe_record import ProbeRecord, open_record
from runner.app.probe_submit import REFUSED, SAME_TASK
from runner.app.run_context import RunOptions, open_context
from runner.app.state_binding import bind_state, check_binding
from runner.errors import JobLockedError, RunnerError
from runner.files import make_account_directory
from runner.net.cut import CuttingSender
from runner.providers.guarantee import guarantee
from runner.report import results
from runner.report.stats import RunStats
from runner.scheduler.clock import Clock
from runner.scheduler.outcome import Ending, Exit, run_outcome
from runner.scheduler.run import GRACE, SHORT_GRACE, SIGNALS, Run
from runner.store import filesystem
from runner.store.facts import read_facts
from runner.store.lock import job_lock
from runner.store.read_only import open_read_only
from runner.tasks.events import Interrupted, Missing, Resolved
from runner.tasks.models import State
from runner.text import pluralize, sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runner.app.observer import Observer
    from runner.app.probe_plan import ProbeJob, ProbePlan
    from runner.app.run_context import RunContext
    from runner.providers.guarantee import Guarantee
    from runner.scheduler.pipeline import ProviderPipeline
    from runner.settings import Settings
    from runner.tasks.fact import Fact
    from runner.tasks.models import Task

#: states that a probe works on at its start and its end: everything but buying
_STATES = (State.IN_DOUBT, State.RUNNING, State.READY)
#: states in which nobody knows whether a task was bought
_OPEN = {State.SUBMITTING, State.IN_DOUBT, State.HELD}
#: seconds after an answer until a second task under the same reference would stand in the list, at least
_SETTLING = 3.0
#: characters of a provider's answer in a fact
_MAX_WHY = 100
#: quiet times for which a request without an answer is looked for
_QUIET_TIMES = 2
#: who decides about a double request that left nothing
_DECIDER = "probe"
#: facts that only the report shows: fields and numbers are kept by each reading, the others serve no decision
_REPORT_ONLY = {"field", "unknown_id", "pages", "order", "capacity", "lag", "times"}
#: facts that each reading teaches too
_BY_READING = {"reference_in_list", "own_rows"}


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What a probe has found, and how it ended."""

    plan: ProbePlan
    facts: tuple[Fact, ...]
    notes: tuple[str, ...]
    #: tasks that were bought, or may have been, with their ids where they are known
    bought: tuple[Task, ...]
    #: key and reason of each task that a person must decide about
    open: tuple[Task, ...]
    exit: Exit
    reasons: tuple[str, ...]
    directory: Path
    guarantee: Guarantee | None = None
    at: float = 0.0
    #: requests that were refused and yet left a task: their ids
    surplus: tuple[str, ...] = field(default=())


def execute(plan: ProbePlan, settings: Settings, observer: Observer, say: Callable[[str], None]) -> ProbeReport:
    """Run a probe, or go on with one that was interrupted, and return its report.

    Handles INT, TERM and HUP, which only the main thread can. `say` is called with what it does next. Raises
    RunnerError if it cannot begin.
    """
    account = provider_config.account_directory(plan.spec, settings)
    provider_config.auth_scheme(plan.spec, settings)
    make_account_directory(account)
    clock = Clock()
    with _only_probe(account / "probe"):
        record = open_record(account / "probe", plan, clock.now())
        directory = record.directory
        job = make_job(plan, record.nonce, directory, settings)
        filesystem.check(directory, allow_remote=settings.text("RUNNER_NETWORK_DISK") is not None)
        with job_lock(job.state_directory):
            report = anyio.run(_run, job, plan, record, settings, observer, say, clock)
            with open_read_only(job.state_directory) as queries, suppress(OSError):
                results.write(directory / "results.jsonl", queries.results())
    return report


@contextmanager
def _only_probe(directory: Path) -> Iterator[None]:
    """Hold the lock of all probes of an account. Raises JobLockedError."""
    lock = job_lock(directory)
    try:
        lock.__enter__()
    except JobLockedError as error:
        message = error.message.replace("this job is being run", "this account is being probed")
        raise JobLockedError(message, hint="Wait until it has ended.") from None
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


async def _run(
    job: ProbeJob,
    plan: ProbePlan,
    record: ProbeRecord,
    settings: Settings,
    observer: Observer,
    say: Callable[[str], None],
    clock: Clock,
) -> ProbeReport:
    async with AsyncExitStack() as stack:
        context = await open_context(
            job, settings, RunOptions(verb="run", again=True), observer, stack, RunStats(), clock
        )
        probe = Probe(job, plan, record, context, say)
        store, registries, entry, now = context.store, context.registries, None, clock.now()
        if plan.spend:
            directory = str(await anyio.to_thread.run_sync(job.directory.resolve))
            fence = (await check_binding(store, job.state_directory, directory, registries, now)).fence
            registered = await register_run(
                registries, store, name="probe", directory=directory, now=now, buy_again=False, fenced=bool(fence)
            )
            if fence:
                observer.warn(f"{fence}. To begin a new probe, move {job.directory} away")
                for pipeline in context.pipelines:
                    pipeline.session.raise_fence(fence)
            else:
                entry = registered
                await bind_state(job.state_directory, directory, registries, now)
                await stack.enter_async_context(record_while_running(registries, store, observer.warn))
        endings = await probe.run()
        report = await probe.report(endings)
        if report.exit in {Exit.DONE, Exit.HELD, Exit.FAILED}:
            await record.finish(clock.now())
            if entry is not None:
                await mark_finished(context.registries, entry)
        return report


class Probe:
    """The steps of one probe, each of which keeps what it found before the next begins."""

    def __init__(
        self, job: ProbeJob, plan: ProbePlan, record: ProbeRecord, context: RunContext, say: Callable[[str], None]
    ) -> None:
        self._job, self._plan, self._record, self._say = job, plan, record, say
        self._store, self._clock, self._context = context.store, context.clock, context
        self._pipeline: ProviderPipeline = context.pipelines[0]
        self._session = self._pipeline.session
        self._quiet = self._pipeline.settlement.policy.quiet_time
        self._measurement = Measurement(self._session, plan.operation, job.draft("task").model, record.nonce)
        self._purchases = Purchases(job, plan, record, context, say)
        self._scope = anyio.CancelScope()
        self._signal: Exit | None = None
        #: why a later start must go on, and why none can
        self._incomplete = self._failed = ""

    async def run(self) -> list[Ending]:
        """Go on with what an earlier start has left, take every step, and fetch what was bought."""
        endings: list[Ending] = []
        await self._purchases.check()
        if await self._purchases.sent():
            self._say("going on with a probe that was interrupted")
            if not self._session.fence:
                await self._settle_double()
            endings = await self._collect()
        if not any(each.exit in {Exit.INT, Exit.TERM, Exit.HUP} for each in endings):
            await self._take_steps()
            await self._purchases.hold_only(await self._purchases.sent())
            if self._signal is None:
                endings = await self._collect()
                await self._judge_late_refusal()
            if self._signal is None and not self._session.fence:
                endings = await self._leave_to_user(endings)
        if self._session.fence:
            endings.append(Ending(Exit.STATE, f"{self._session.fence}. Move {self._job.directory} away"))
        if self._signal is not None:
            endings.append(Ending(self._signal, "stopped by a signal; the same command goes on"))
        self._incomplete = self._purchases.unsent or self._incomplete
        if self._incomplete:
            endings.append(Ending(Exit.RESUMABLE, self._incomplete))
        if self._failed:
            endings.append(Ending(Exit.FAILED, f"{self._failed}; the same command begins a new probe"))
        return endings

    async def _judge_late_refusal(self) -> None:
        """Begin a new probe next time, if the refusal of the task to be measured turned out to have left no task."""
        task = await self._purchases.row("task")
        if task.state is State.FAILED and not is_paid(task) and self._incomplete:
            self._incomplete = self._purchases.unsent = ""
            self._failed = f"the task to be measured was not accepted: {task.error.message or task.reason}"

    async def report(self, endings: list[Ending]) -> ProbeReport:
        """Return the report."""
        rows = [await self._purchases.row(step) for step in self._purchases.steps]
        outcome = run_outcome(endings)
        surplus = self._record.surplus
        if surplus:
            outcome = run_outcome([*outcome.endings, Ending(Exit.HELD, "a refused request has left a task")])
        return ProbeReport(
            self._plan,
            tuple(self._record.facts),
            tuple(self._record.notes),
            tuple(row for row in rows if row.remote_id or row.state in _OPEN),
            tuple(row for row in rows if row.state in _OPEN),
            outcome.exit,
            tuple(each.why for each in outcome.endings),
            self._job.directory,
            await self.guarantee(),
            self._clock.now(),
            tuple(surplus),
        )

    # around the steps

    async def _collect(self) -> list[Ending]:
        """Work as a run does that buys nothing: reconcile, poll and download. Return why it ended.

        Tasks that were refused on purpose are no failures of a probe.
        """
        run = Run(
            self._context.pipelines,
            store=self._store,
            directory=self._job.directory,
            clock=self._clock,
            notifier=self._context.notifier,
            on_bug=self._context.observer.report_bug,
            stages=_STATES,
        )
        return [ending for ending in (await run.run()).endings if ending.exit != Exit.FAILED]

    async def _leave_to_user(self, endings: list[Ending]) -> list[Ending]:
        """Hold what was looked for in vain until after its quiet time: the probe buys nothing that could tell more."""
        held = 0
        for step in self._purchases.steps:
            task = await self._purchases.row(step)
            if task.state is not State.IN_DOUBT or task.sent is None or self._session.dead:
                continue
            waited = self._clock.since(task.sent.boot, task.sent.seconds, self._clock.moment())
            if waited < self._quiet or await self._measurement.look(task) is not None or self._session.breaker.outage:
                continue
            missing = Missing(quiet=True, provable=False, why="the probe buys no later task that could tell")
            for _ in range(self._pipeline.settlement.policy.required_absences):
                if task.state is State.IN_DOUBT:
                    task = await self._pipeline.settlement.settle(task, missing) or task
            held += task.state is State.HELD
        if not held:
            return endings
        others = [ending for ending in endings if ending.exit not in {Exit.RESUMABLE, Exit.HELD}]
        return [*others, Ending(Exit.HELD, f"{pluralize(held, 'request')} without an answer: perhaps paid for")]

    async def _take_steps(self) -> None:
        """Take the steps until they are done or a signal stops them."""
        failure: RunnerError | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch_signals)
            if self._pipeline.images is not None:
                await group.start(self._pipeline.images.run, self._context.observer.report_bug)
            with self._scope:
                try:
                    await self._steps()
                except RunnerError as error:  # raised below, and not as a part of a group
                    failure = error
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure
        await self._pipeline.save_facts()

    async def _watch_signals(self) -> None:
        with anyio.open_signal_receiver(*SIGNALS) as signals:
            tries = 0
            async for number in signals:
                tries += 1
                if tries > 2:  # noqa: PLR2004 - the third is meant, as in a run
                    os._exit(self._signal or SIGNALS[number])
                self._signal = self._signal or SIGNALS[number]
                self._purchases.stop(GRACE if tries == 1 else SHORT_GRACE)
                self._scope.cancel()

    async def _steps(self) -> None:
        self._say("asking what costs nothing: an unknown reference, an unknown id, three pages of the list")
        await self._keep("questions", await self._measurement.ask(await self._purchases.row("task")))
        if not self._session.proved or self._session.blocked or self._session.dead:
            if not self._session.blocked:
                self._incomplete = f"{self._session.name} cannot be reached"
            return
        if "task" not in self._plan.steps:
            return
        refusal = await self._purchases.buy("refusal", "sending a request with an invalid parameter")
        task = await self._buy_task()
        if task is None:
            return
        await self._judge_refusal(refusal, task)
        await self._send_double(task)
        await self._send_and_cut(task)
        await self._send_pictures()

    # the steps

    async def _buy_task(self) -> Task | None:
        """Buy the task on which list and reference are measured. Return it if it was accepted."""
        is_new = not is_paid(await self._purchases.row("task"))
        task = await self._purchases.buy("task", "buying one task, and watching how it is shown")
        if task is not None and task.state is State.IN_DOUBT:
            task, is_new = await self._find_lost(task), False
        if task is None or task.remote_id is None:
            if task is not None and task.state in {State.FAILED, State.QUEUED}:
                self._failed = f"the task to be measured was not accepted: {task.error.message or task.reason}"
            elif task is not None:
                self._incomplete = f"the task to be measured is {task.state}"
            return None
        if "task" not in self._record.steps:
            await self._keep("task", await self._measurement.measure(task, self._quiet, is_new=is_new))
        if "end" not in self._record.steps:
            self._say("waiting for its end, to compare the list with it")
            await self._keep("end", await self._measurement.follow(task))
        return task

    async def _find_lost(self, task: Task) -> Task:
        self._say("its answer was lost: looking for it")
        found, _ = await self._measurement.find(task, self._quiet)
        return task if found is None else await self._pipeline.settlement.settle(task, found) or task

    async def _judge_refusal(self, refusal: Task | None, task: Task) -> None:
        """Judge, by a task that was accepted after it, whether a refused request has left a task."""
        if refusal is None or "refusal" in self._record.steps:
            return
        if refusal.remote_id is not None:
            note = f"refusals: the invalid value ({self._invalid()}) was accepted, and a task was bought"
            await self._keep("refusal", Measured(notes=[note]))
            return
        # in doubt without a doubtful send: it was refused, and the refusal is not believed yet
        is_suspect = refusal.state is State.IN_DOUBT and not refusal.doubts
        if refusal.state is not State.FAILED and not is_suspect:
            return
        subject = " ".join(filter(None, (refusal.error.code, refusal.error.reason)))
        found = await self._measurement.look(refusal)
        if found is not None:
            if is_suspect:
                await self._pipeline.settlement.settle(refusal, found)
            else:
                self._record.surplus.append(found.remote_id)
            why = f"{found.remote_id} was made, and the submit was answered with {refusal.error.code}"
            fact = self._measurement.fact("refusal", "contradicted", "charges", subject=subject, why=why)
            await self._keep("refusal", Measured([fact]))
        elif await self._is_shown(task):
            if is_suspect:
                missing = Missing(quiet=True, why=f"absent, while {task.remote_id} is shown, which was accepted later")
                await self._pipeline.settlement.settle(refusal, missing)
            fact = self._measurement.fact("refusal", "measured", "free", subject=subject, why=self._invalid())
            await self._keep("refusal", Measured([fact]))
        else:
            if is_suspect:  # nobody wants what it may have left, and it counts as spent
                await self._pipeline.settlement.settle(refusal, Resolved("abandon", _DECIDER))
            await self._keep("", Measured(notes=[f"refusal {subject}: what the list shows does not tell"]))

    def _invalid(self) -> str:
        name, value = self._plan.invalid or ("", "")
        return f"{name}: {value}"

    async def _is_shown(self, task: Task) -> bool:
        """Return True if the list, or an answer by reference, shows an own task with what it is recognised by."""
        found = await self._measurement.look(task)
        return found is not None and found.remote_id == task.remote_id

    async def _send_double(self, first: Task) -> None:
        """Send the first task's request again under its reference, and see what it leaves."""
        if "double" not in self._plan.steps or "double" in self._record.steps:
            return
        facts = {fact.name: fact for fact in self._record.facts}
        shown = facts.get("reference_in_list")
        if shown is None or shown.state != "measured":
            note = "double references: not tried, since the list does not show what they would buy"
            await self._keep("double", Measured(notes=[note]))
            return
        task = await self._purchases.buy("double", "sending the same reference again", first=first)
        if task is not None:
            await self._judge_double(task, first)

    async def _judge_double(self, task: Task, first: Task) -> None:
        """Tell from the answer, and from the rows under that reference, whether a second task was bought."""
        answer = task.reason
        if task.state is State.HELD:
            await anyio.sleep(max(_SETTLING, 4 * self._session.facts_of(task.operation).lag.longest))
            reading = await self._measurement.read(first)
            rows = {row.remote_id for row in reading.rows if row.reference == first.ref} if reading else set()
            others = sorted(rows - {first.remote_id})
            if first.remote_id not in rows:
                await self._keep(
                    "", Measured(notes=["double references: the list does not show the first task any more"])
                )
                return
            decision = Resolved("adopt", _DECIDER, others[0]) if others else Resolved("abandon", _DECIDER)
            task = await self._pipeline.settlement.settle(task, decision) or task
            # judged here: the closing reading of a run looks for its own reference, which was never sent
            self._session.doubted.pop(task.id, None)
        if task.remote_id is not None:
            value, why = "accepted", "a second task was bought"
        elif answer.startswith(SAME_TASK):
            value, why = "first", "answered with the first task, and the list shows one"
        elif answer.startswith(REFUSED):
            value, why = "refused", f"{sanitize(answer.removeprefix(REFUSED), _MAX_WHY)}; the list shows one task"
        else:
            await self._keep("double", Measured(notes=["double references: no answer, and no second task in the list"]))
            return
        await self._keep("double", Measured([self._measurement.fact("doubles", "measured", value, why=why)]))

    async def _settle_double(self) -> None:
        """Judge a double request whose answer an earlier start has not lived to see. No reconcile may do so."""
        task, first = await self._purchases.row("double"), await self._purchases.row("task")
        if task.state is State.SUBMITTING:
            event = Interrupted("the probe ended before the answer came", hopeless=True)
            task = await self._pipeline.settlement.settle(task, event) or task
        if task.state is State.HELD and first.remote_id is not None:
            waited = self._clock.since(task.sent.boot, task.sent.seconds, self._clock.moment()) if task.sent else 0.0
            self._say("a double request had no answer: looking for what it has left")
            await anyio.sleep(max(0.0, self._quiet - waited))
            await self._judge_double(task, first)

    async def _send_and_cut(self, task: Task) -> None:
        """Cut a connection after the last byte of a request, and look for what it has left."""
        if "cut" not in self._plan.steps or "cut" in self._record.steps:
            return
        is_new = not is_paid(await self._purchases.row("cut"))
        if is_new and not await self._is_shown(task):
            note = "a cut connection: not tried, since nothing shows what it would buy"
            await self._keep("cut", Measured(notes=[note]))
            return
        sender = self._session.client
        self._session.client = CuttingSender(sender)
        try:
            cut = await self._purchases.buy("cut", "sending a request and cutting its connection after the last byte")
        finally:
            self._session.client = sender
        if cut is None:
            return
        if cut.state is State.IN_DOUBT:
            seconds = _QUIET_TIMES * self._quiet
            self._say(f"looking for it, at most {seconds:g} s")
            found, after = await self._measurement.find(cut, seconds)
            cut = cut if found is None else await self._pipeline.settlement.settle(cut, found) or cut
            if is_new or found is None:
                value = f"{after:.1f}" if found is not None else f"none within {seconds:g}"
                fact = self._measurement.fact("delivery_after_cut", "measured", value, why="seconds, at most")
                await self._keep("cut", Measured([fact]))
        elif cut.remote_id is not None and not cut.adopted:
            await self._keep("cut", Measured(notes=["a cut connection: the answer was faster than the cut"]))
        if cut.remote_id is not None and (reading := await self._measurement.read(task)) is not None:
            own = [await self._purchases.row(step) for step in self._purchases.steps]
            own = sorted((row for row in own if row.remote_id), key=lambda row: row.submitted_at or 0.0)
            await self._keep("", Measured(list(self._measurement.order_of_own(own, reading))))

    async def _send_pictures(self) -> None:
        """Buy two tasks that differ only in their pictures, and see what the list shows of them."""
        name = self._plan.picture
        if name is None or "picture" in self._record.steps:
            return
        shown, sent = [], []
        for step in PICTURES:
            task = await self._purchases.buy(step, f"buying a task with a picture ({name})")
            if task is None or task.remote_id is None:
                if task is not None:
                    await self._keep("", Measured(notes=[f"field {name}: its task is {task.state}"]))
                return
            shown.append(await self._measurement.shown_field(task, name, self._quiet))
            images = self._pipeline.images
            values = await images.values(task) if images is not None else {}
            sent.append(list(values.values()) if isinstance(values, dict) else [])
        await self._keep("picture", self._measurement.judge_pictures(name, shown, sent))

    async def _keep(self, step: str, measured: Measured) -> None:
        """Keep facts and notes in the probe's record, and facts for all jobs of the account."""
        await self._record.keep(step, measured)
        accounts, group = self._pipeline.facts, self._session.dialect.group(self._plan.operation)
        if accounts is None:
            return
        await self._pipeline.save_facts()
        try:
            known = {fact.key: fact for fact in await accounts.facts(group, self._clock.now())}
            for fact in filter(None, map(_for_account, measured.facts)):
                earlier = known.get(fact.key)
                if earlier is not None and earlier.state == "contradicted" and fact.state == "measured":
                    await accounts.clear(group, earlier)  # a deliberate measurement clears a contradiction
                elif fact.name in _BY_READING and fact.state == "measured":
                    continue
                await accounts.record(group, fact)
        except RunnerError as error:
            self._session.on_warning(f"{error.message}: what was measured is in {self._job.directory} only")

    async def guarantee(self) -> Guarantee | None:
        """Return the class that the account's facts give, as far as they are known."""
        if self._pipeline.facts is None:
            return None
        group, account = self._session.dialect.group(self._plan.operation), self._pipeline.facts.directory
        try:
            facts = await anyio.to_thread.run_sync(read_facts, account, group)
        except RunnerError:
            return None
        model = self._job.draft("task").model
        return guarantee(self._plan.spec, self._plan.operation, model, facts, self._clock.now())


def _for_account(fact: Fact) -> Fact | None:
    """Return a fact as the account keeps it, or None if only the report shows it.

    What every reading teaches is kept for the whole list. Readings have written it down already, unless a contradiction
    stood against it.
    """
    if fact.name in _REPORT_ONLY:
        return None
    return replace(fact, operation="", model="") if fact.name in _BY_READING else fact
