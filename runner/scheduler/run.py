"""The run: recover, start the stages, watch for the end, drain on a signal.

The first signal stops submits and lets requests on the wire deliver their ids. The second shortens that wait. The third
ends the process. In every case the store is consistent and the next run goes on from there.
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from runner.errors import JobLockedError, RunnerError
from runner.scheduler.late_results import LateResults
from runner.scheduler.outcome import Ending, Exit, RunOutcome, files_text, run_outcome, unlisted_text
from runner.tasks.events import Interrupted
from runner.tasks.models import State
from runner.tasks.remote_ids import show_remote_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from anyio.abc import TaskGroup

    from runner.scheduler.clock import Clock
    from runner.scheduler.pipeline import ProviderPipeline
    from runner.scheduler.session import ProviderSession
    from runner.scheduler.stage import Notifier, Stage
    from runner.store.store import Store
    from runner.tasks.events import BlockKind
    from runner.tasks.models import Task

#: seconds that requests on the wire have after the first signal, and after the second
GRACE = 30.0
SHORT_GRACE = 5.0
#: seconds between two checks for the end of the run, at most
_HEARTBEAT = 5.0
#: the states that a run works on
EVERY_STAGE = (State.QUEUED, State.IN_DOUBT, State.RUNNING, State.READY)
#: seconds after a claim by which its request has left, if at all: one deadline until its turn, one of its own
_LEFT_BY = 120.0
#: seconds that every run polls and fetches what is paid, however long the pause before it was
_AT_LEAST = 3600.0
#: seconds to the next fetch of a file whose host is away, above which the next run fetches it; longer than a download's
#: lease, since a download is claimed until its lease ends before a worker counts as busy
_FILES_WAIT = 120.0
#: seconds after the deadline for which a task is polled whose state word no spec lists: the next run polls it again
_UNLISTED_GRACE = 30.0
#: ids that a reason names
_MOST_NAMED = 3
#: said before the third signal ends the process
_AT_ONCE = "stopped at once by a third signal: what was on the wire had no answer, and the next run looks it up first"
_BLOCKED: Mapping[BlockKind, Exit] = {
    "credentials": Exit.CREDENTIALS,
    "account": Exit.CREDENTIALS,
    "credit": Exit.CREDIT,
    "cost": Exit.COST,
    "refusals": Exit.RESUMABLE,
    "window": Exit.RESUMABLE,
    "distrust": Exit.RESUMABLE,
    "configuration": Exit.CONFIGURATION,
    "disk": Exit.DISK,
    "state": Exit.STATE,
}
#: signals on which a run drains, and the exit code of each
SIGNALS = {signal.SIGINT: Exit.INT, signal.SIGTERM: Exit.TERM, signal.SIGHUP: Exit.HUP}


class Run:
    """One run of one job over its providers.

    `deadline` (seconds from the start) stops submits, `end` all work: what is paid waits for the next run. `on_bug` is
    called with every unexpected error. With `signals` the run drains on INT, TERM and HUP, which only the main thread
    of a process can. `stages` are the states that it works on: without `queued` it buys nothing. Tasks in the states
    `unfinished`, by default those, are left to a later run, and its exit code says so. `enqueue` adds tasks while the
    run goes on, which waits for it while it can buy.
    """

    def __init__(
        self,
        pipelines: Sequence[ProviderPipeline],
        *,
        store: Store,
        directory: Path,
        clock: Clock,
        notifier: Notifier,
        deadline: float | None = None,
        end: float | None = None,
        on_bug: Callable[[Exception], None],
        signals: bool = True,
        stages: Collection[State] = EVERY_STAGE,
        unfinished: Collection[State] | None = None,
        enqueue: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._pipelines, self._store, self._clock, self._notifier = pipelines, store, clock, notifier
        self._directory, self._deadline, self._on_bug = directory, deadline, on_bug
        #: when all work ends, on the monotonic clock
        self._end = None if end is None else clock.monotonic() + end
        self._handle_signals, self._states = signals, frozenset(stages)
        self._unfinished = self._states if unfinished is None else frozenset(unfinished)
        self._submits = {pipeline.name: pipeline.submit_stage(self._report_bug) for pipeline in pipelines}
        for pipeline in pipelines:
            pipeline.session.may_submit = State.QUEUED in self._states
        self._enqueue, self._is_enqueuing = enqueue, enqueue is not None
        self._stages: list[Stage] = []
        self._late_results: list[LateResults] = []
        self._bugs: list[str] = []
        #: ids of tasks that were paid for beside ours, by provider
        self._surplus: dict[str, list[str]] = {}
        self._signal: Exit | None = None
        self._deadline_passed = self._has_ended = False
        #: the deadline passed so long ago that tasks with unlisted state words no longer keep the run
        self._leaves_unlisted = False
        self._scope = anyio.CancelScope()

    @property
    def stopping(self) -> bool:
        """Return True if a signal or `stop` has ended the run."""
        return self._signal is not None

    @property
    def waits(self) -> dict[str, str]:
        """Return why submits wait at present, by provider; empty where they do not, or were stopped."""
        if self.stopping or self._deadline_passed:
            return {}
        sessions = (pipeline.session for pipeline in self._pipelines)
        return {
            session.name: session.capacity.backlog.reason
            for session in sessions
            if session.capacity.backlog.reason and session.blocked is None
        }

    async def run(self) -> RunOutcome:
        """Do everything that can be done now. Raises RunnerError if the store or the disk gives up."""
        await self._recover()
        try:
            async with anyio.create_task_group() as group:
                if self._handle_signals:
                    group.start_soon(self._watch_signals)
                await self._work()
                group.cancel_scope.cancel()
            await self._flush()
        except BaseExceptionGroup as errors:
            first = _first(errors)
            if isinstance(first, JobLockedError):
                first.exit_code = Exit.RESUMABLE  # 11 says that the run has not begun
            raise first from None
        finally:
            if self._signal is not None and self._handle_signals:
                # what follows a signal is short and must be whole: the summary and the results
                for number in SIGNALS:
                    signal.signal(number, signal.SIG_IGN)
        return run_outcome([ending async for ending in self._endings()])

    def stop(self, code: Exit, grace: float) -> None:
        """Stop as on a signal: submit nothing more, and give requests on the wire `grace` seconds to deliver their ids.

        `code` is the exit code that reports it. Of several calls the first one's counts.
        """
        self._signal = self._signal or code
        self._stop_submits(grace)
        self._scope.cancel()

    async def _flush(self) -> None:
        """Write what the account's jobs share: facts, and claims that another process kept from being written."""
        for pipeline in self._pipelines:
            await pipeline.save_facts()
            if pipeline.settlement.claims is not None:
                await pipeline.settlement.claims.flush_pending()

    async def _recover(self) -> None:
        """Put what was on the wire when the last run ended in doubt, and make everything paid due at once."""
        pipelines = {pipeline.name: pipeline for pipeline in self._pipelines}
        for task in await self._store.in_state(State.SUBMITTING):
            if task.provider in pipelines:
                settlement = pipelines[task.provider].settlement
                interrupted = Interrupted("the process ended before the answer came", process_ended=True)
                await settlement.settle(self._with_latest_send(task), interrupted)
                settlement.failpoint("recovery marked")
        now = self._clock.now()
        shortest = min((pipeline.settlement.policy.paid_timeout for pipeline in self._pipelines), default=0.0)
        await self._store.wake(now, now - shortest + _AT_LEAST)
        for pipeline in self._pipelines:
            pipeline.load_earlier()
        counts = await self._store.counts()
        if State.QUEUED in self._states and counts.get(State.QUEUED):
            for pipeline in self._pipelines:
                await pipeline.ask_before_buying(is_first_run=self._store.epoch <= 1)
        ready = (await self._store.counts()).get(State.READY, 0)  # of every provider, which errs on the safe side
        for pipeline in self._pipelines:
            capacity = pipeline.session.capacity
            capacity.restore(await self._store.slots_taken(pipeline.name), ready)
            capacity.backlog.restore(await self._store.unfetched_counts(pipeline.name), now)
            if self._states.issuperset({State.RUNNING, State.READY}):
                late = LateResults(pipeline.session, pipeline.settlement, pipeline.schedule)
                await late.collect(pipeline.groups())
                self._late_results.append(late)

    def _with_latest_send(self, task: Task) -> Task:
        """Set the latest time at which its request may have left: after the claim, before its process was gone."""
        if task.sent is None:
            return task
        left = min(task.sent.seconds + _LEFT_BY, max(task.sent.seconds, self._clock.moment().seconds))
        return replace(task, sent=replace(task.sent, seconds=left))

    async def _work(self) -> None:
        """Run stages and submits side by side. Submits are waited for even when the stages are cancelled."""
        async with anyio.create_task_group() as submits:
            with self._scope:
                async with anyio.create_task_group() as group:
                    for pipeline in self._pipelines:
                        self._start(pipeline, group)
                        if State.QUEUED in self._states:
                            submits.start_soon(self._submits[pipeline.name].run)
                    if self._enqueue is not None:
                        group.start_soon(self._add_tasks, self._enqueue)
                    if self._deadline is not None:
                        group.start_soon(self._watch_deadline, self._deadline)
                    if self._end is not None:
                        group.start_soon(self._watch_end, self._end - self._clock.monotonic())
                    await self._until_idle()
                    if await self._find_late_results():
                        await self._until_idle()
                    if not self._deadline_passed:
                        for pipeline in self._pipelines:
                            self._surplus[pipeline.name] = await pipeline.find_surplus()
                    group.cancel_scope.cancel()
            self._stop_submits(GRACE)
            while not all(submit.idle for submit in self._submits.values()):
                await self._notifier.wait("idle", 0.1)
            submits.cancel_scope.cancel()

    def _start(self, pipeline: ProviderPipeline, group: TaskGroup) -> None:
        async def on_broken(batch: Sequence[Task], error: Exception) -> None:
            self._report_bug(error)
            await pipeline.settlement.set_aside(batch)

        group.start_soon(pipeline.session.probe)
        group.start_soon(self._without_bugs, pipeline.watch_contradictions)
        if State.QUEUED in self._states:
            group.start_soon(self._without_bugs, pipeline.calibration().run)
        for stage in pipeline.stages(self._states, self._directory, on_broken):
            self._stages.append(stage)
            group.start_soon(stage.run)

    async def _add_tasks(self, enqueue: Callable[[], Awaitable[None]]) -> None:
        await enqueue()
        self._is_enqueuing = False
        self._notifier.notify("idle")

    async def _without_bugs(self, measure: Callable[[], Awaitable[None]]) -> None:
        """Measure something in the background. A bug in it is reported, and stops no purchase and no download."""
        try:
            await measure()
        except RunnerError:
            raise
        except Exception as error:  # noqa: BLE001 - what it would have learned costs patience, and no money
            self._report_bug(error)

    def _report_bug(self, error: Exception) -> None:
        self._bugs.append(repr(error))
        self._on_bug(error)

    # the end

    async def _until_idle(self) -> None:
        while not await self._is_over():
            await self._notifier.wait("idle", _HEARTBEAT)

    async def _find_late_results(self) -> bool:
        """Ask once, when all else is done, about lost tasks. Return True if some have outputs after all."""
        found = 0
        for late in [] if self._deadline_passed else self._late_results:
            found += await late.search()
        return found > 0

    async def _is_over(self) -> bool:
        if self._deadline_passed and all(pipeline.session.breaker.outage for pipeline in self._pipelines):
            return True  # nothing can be submitted any more and no provider answers: the next run goes on
        # a submit worker without a task is no work: what a worker has claimed is `submitting` in the store
        if not all(stage.idle for stage in self._stages):
            return False
        if self._is_enqueuing and any(self._can_buy(pipeline.session) for pipeline in self._pipelines):
            return False
        return not any([await self._is_busy(pipeline.session) for pipeline in self._pipelines])

    async def _is_busy(self, session: ProviderSession) -> bool:
        states = [] if session.capacity.disk_full else [State.READY]
        if not session.dead:
            states += [State.RUNNING, State.IN_DOUBT]
        if self._can_buy(session):
            states.append(State.QUEUED)
        return await self._store.has_work(
            session.name,
            self._states.intersection(states),
            session.capacity.free_slots,
            self._clock.now() + _FILES_WAIT,
            unlisted=not self._leaves_unlisted,
        )

    def _can_buy(self, session: ProviderSession) -> bool:
        # with the breaker open, only a settled doubt lets submits go on: where none is due, waiting is in vain
        return not (session.blocked or session.dead or self._deadline_passed or session.breaker.doubtful)

    async def _endings(self) -> AsyncIterator[Ending]:
        """Yield every reason that holds now."""
        counts = await self._store.counts()
        if self._bugs:
            yield Ending(Exit.BUG, self._bugs[0])
        if counts.get(State.HELD):
            yield Ending(Exit.HELD, f"{counts[State.HELD]} held: they may have been paid for, and nothing can tell")
        for name, ids in self._surplus.items():
            if ids:
                named = ", ".join(show_remote_id(each) for each in ids[:_MOST_NAMED])
                more = f" and {len(ids) - _MOST_NAMED} more" if len(ids) > _MOST_NAMED else ""
                why = f"{name} has {len(ids)} more like ours, paid for by nobody we know ({named}{more}): runner audit"
                yield Ending(Exit.HELD, why)
        withheld = await self._withheld_count(counts)
        for pipeline in self._pipelines:
            if withheld or not pipeline.session.fence:
                for ending in _provider_endings(pipeline.session):
                    yield ending
        if self._has_ended and self._is_enqueuing:
            yield Ending(Exit.RESUMABLE, "the run ended before every task was added: the next run goes on")
        if self._signal is not None:
            yield Ending(self._signal, "stopped by a signal")
        unfinished = sum(counts.get(state, 0) for state in (State.SUBMITTING, *self._unfinished))
        unfinished -= await self._store.removed_unsent_count() if State.QUEUED in self._unfinished else 0
        if any(pipeline.session.fence for pipeline in self._pipelines):
            unfinished -= withheld  # another run would not help
        for files in await self._store.waiting_files() if unfinished else ():
            yield Ending(Exit.RESUMABLE, f"{files_text([files])}: runner run fetches them, free of charge")
        if unfinished and (unlisted := unlisted_text(await self._store.unlisted_states())):
            yield Ending(Exit.RESUMABLE, f"{unlisted}: the next run asks again")
        if unfinished:
            late = " at the end of the run" if self._has_ended else " at the deadline" if self._deadline_passed else ""
            late = late if self._states.issuperset(self._unfinished) else ": runner run goes on"
            yield Ending(Exit.RESUMABLE, f"{unfinished} not finished{late}")
        failed = counts.get(State.FAILED, 0) - await self._store.removed_failed_count()
        lost = failed + counts.get(State.STRANDED, 0) + await self._store.partial_count()
        if lost:
            yield Ending(Exit.FAILED, f"{lost} failed, incomplete or out of reach")

    async def _withheld_count(self, counts: Mapping[str, int]) -> int:
        """Return how many tasks a fence keeps from being bought, or from being called never bought."""
        states = self._states.intersection({State.QUEUED, State.IN_DOUBT})
        removed = await self._store.removed_unsent_count() if State.QUEUED in states else 0
        return sum(counts.get(state, 0) for state in states) - removed

    # stopping

    async def _watch_signals(self) -> None:
        # what was ignored at the start stays so: `nohup` asks for it
        heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        if not heard:
            return
        with anyio.open_signal_receiver(*heard) as signals:
            tries = 0
            async for number in signals:
                tries += 1
                if tries > 2:  # noqa: PLR2004 - the third is meant
                    if self._pipelines:  # the exit code alone would say that everything was answered
                        self._pipelines[0].session.on_warning(_AT_ONCE)
                    os._exit(self._signal or SIGNALS[number])
                self.stop(SIGNALS[number], GRACE if tries == 1 else SHORT_GRACE)

    async def _watch_deadline(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        self._deadline_passed = True
        self._stop_submits(GRACE)
        self._notifier.notify("idle")
        await anyio.sleep(_UNLISTED_GRACE)
        self._leaves_unlisted = True
        self._notifier.notify("idle")

    async def _watch_end(self, seconds: float) -> None:
        """Submit nothing shortly before the end, so that what is on the wire then is answered, and end all work."""
        left = max(0.0, seconds)
        grace = min(GRACE, left / 4)
        await anyio.sleep(left - grace)
        self._deadline_passed = True
        self._stop_submits(grace)
        self._notifier.notify("idle")
        await anyio.sleep(grace)
        self._has_ended = True
        self._scope.cancel()

    def _stop_submits(self, grace: float) -> None:
        for submit in self._submits.values():
            submit.stop(grace)


def _provider_endings(session: ProviderSession) -> Iterator[Ending]:
    if session.blocked is not None:
        kind, error = session.blocked
        reason = " ".join(part for part in (error.code, error.message) if part)
        yield Ending(_BLOCKED[kind], reason if session.fence else f"{session.name}: {reason}")
    if session.breaker.doubtful and not session.blocked:
        yield Ending(
            Exit.RESUMABLE, f"{session.name}: submits were stopped, since too many of them had no clear answer"
        )
    if session.unreachable:
        yield Ending(Exit.RESUMABLE, f"{session.name} cannot be reached")


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error to report: ours before any other."""
    flat = list(_flatten(errors))
    return next((error for error in flat if isinstance(error, RunnerError)), flat[0])


def _flatten(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _flatten(inner)
    else:
        yield error
