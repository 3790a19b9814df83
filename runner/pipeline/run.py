"""The run: recover, start the stages, watch for the end, drain when told to.

The first signal stops submits and lets what is on the wire deliver its ids; the second cuts that short; the third
ends the process. In every case the store is consistent and the next run goes on from there.
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from runner.errors import Locked, RunnerError
from runner.lifecycle.events import Interrupted
from runner.lifecycle.task import State
from runner.pipeline.fetch import Fetch
from runner.pipeline.look_up import LookUp
from runner.pipeline.outcome import Ending, Exit, Outcome, outcome
from runner.pipeline.poll import Poll
from runner.pipeline.second_look import look_again, lost
from runner.pipeline.submit import Submit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from anyio.abc import TaskGroup

    from runner.lifecycle.events import BlockKind
    from runner.lifecycle.task import Task
    from runner.pipeline.bell import Bell
    from runner.pipeline.clock import Clock
    from runner.pipeline.lane import Lane
    from runner.pipeline.stage import Stage
    from runner.store.store import Store

#: seconds that submits on the wire have after the first signal, and after the second
GRACE = 30.0
SHORT_GRACE = 5.0
#: seconds between two looks at whether the run is over, at the longest
_HEARTBEAT = 5.0
#: the states that a run works on
EVERY_STAGE = (State.QUEUED, State.IN_DOUBT, State.RUNNING, State.READY)
#: seconds after a claim by which its request has left, if at all: one deadline until its turn, one of its own
_LEFT_BY = 120.0
#: seconds of patience that every run has for what is paid, however long the pause before it was
_AT_LEAST = 3600.0
_BLOCKED: Mapping[BlockKind, Exit] = {
    "credentials": Exit.CREDENTIALS,
    "account": Exit.CREDENTIALS,
    "credit": Exit.CREDIT,
    "cost": Exit.COST,
    "refusals": Exit.RESUMABLE,
    "window": Exit.RESUMABLE,
    "configuration": Exit.CONFIGURATION,
    "disk": Exit.DISK,
}
_SIGNALS = {signal.SIGINT: Exit.INT, signal.SIGTERM: Exit.TERM, signal.SIGHUP: Exit.HUP}


class Run:
    """One run of one job over its lanes; `deadline` in seconds stops submits, `on_bug` hears of what must not be.

    With `signals` it answers to INT, TERM and HUP, which only the main thread of a process can. `stages` are the states
    that it works on: without `queued` it buys nothing.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        *,
        store: Store,
        directory: Path,
        clock: Clock,
        bell: Bell,
        deadline: float | None = None,
        on_bug: Callable[[Exception], None],
        signals: bool = True,
        stages: Collection[State] = EVERY_STAGE,
    ) -> None:
        self._lanes, self._store, self._clock, self._bell = lanes, store, clock, bell
        self._directory, self._deadline, self._on_bug = directory, deadline, on_bug
        self._listen, self._wanted = signals, frozenset(stages)
        self._submits = {lane.name: Submit(lane, self._bug) for lane in lanes}
        self._stages: list[Stage] = []
        #: what earlier runs had nothing to show for, as calls that ask about it
        self._lost: dict[str, Sequence[Sequence[Task]]] = {}
        self._bugs: list[str] = []
        self._signal: Exit | None = None
        self._late = False
        self._scope = anyio.CancelScope()

    @property
    def stopping(self) -> bool:
        """Whether a signal told it to end."""
        return self._signal is not None

    async def run(self) -> Outcome:
        """Everything that can be done now; raises RunnerError where the store or the disk gives up."""
        await self._recover()
        try:
            async with anyio.create_task_group() as group:
                if self._listen:
                    group.start_soon(self._watch_signals)
                await self._work()
                group.cancel_scope.cancel()
            await self._settle_up()
        except BaseExceptionGroup as errors:
            first = _first(errors)
            if isinstance(first, Locked):
                first.exit_code = Exit.RESUMABLE  # 11 says that nothing was begun (FD5)
            raise first from None
        finally:
            self._deafen()
        return outcome([ending async for ending in self._endings()])

    async def _settle_up(self) -> None:
        """What could not be written of an account while another of its processes stood still."""
        for lane in self._lanes:
            if lane.claims is not None:
                await lane.claims.settle_up()

    def _deafen(self) -> None:
        """Once a signal was heard, what follows is short and must be whole: the summary and the results."""
        if self._signal is not None:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN)

    async def _recover(self) -> None:
        """What was on the wire when the last run ended is in doubt; everything paid is looked at once (R2)."""
        lanes = {lane.name: lane for lane in self._lanes}
        for task in await self._store.in_state(State.SUBMITTING):
            if task.provider in lanes:
                await lanes[task.provider].settle(
                    self._late_as_can_be(task), Interrupted("the process ended before the answer came")
                )
                lanes[task.provider].reach("recovery marked")
        now = self._clock.now()
        await self._store.wake(now, now - min((lane.patience.paid for lane in self._lanes), default=0.0) + _AT_LEAST)
        ready = (await self._store.counts()).get(State.READY, 0)  # of every lane, which errs on the safe side
        for lane in self._lanes:
            lane.running, lane.sending = await self._store.slots_taken(lane.name), 0
            lane.ready = ready
            if self._wanted.issuperset({State.RUNNING, State.READY}):
                self._lost[lane.name] = await lost(lane, _groups(lane))

    def _late_as_can_be(self, task: Task) -> Task:
        """The request may have left later than the claim, but before its deadline and before that process was gone."""
        if task.sent is None:
            return task
        left = min(task.sent.seconds + _LEFT_BY, max(task.sent.seconds, self._clock.moment().seconds))
        return replace(task, sent=replace(task.sent, seconds=left))

    async def _work(self) -> None:
        """Stages and submits side by side; submits are waited for even when the stages are cancelled."""
        async with anyio.create_task_group() as submits:
            with self._scope:
                async with anyio.create_task_group() as group:
                    for lane in self._lanes:
                        self._start(lane, group)
                        if State.QUEUED in self._wanted:
                            submits.start_soon(self._submits[lane.name].run)
                    if self._deadline is not None:
                        group.start_soon(self._watch_deadline, self._deadline)
                    await self._until_over()
                    group.cancel_scope.cancel()
            self._stop_submits(GRACE)
            await self._until_delivered()
            submits.cancel_scope.cancel()

    def _start(self, lane: Lane, group: TaskGroup) -> None:
        group.start_soon(lane.probe)
        for stage in self._stages_of(lane):
            self._stages.append(stage)
            group.start_soon(stage.run)

    def _stages_of(self, lane: Lane) -> Iterator[Stage]:
        for operations in _groups(lane):
            if State.RUNNING in self._wanted:
                yield Poll(lane, operations).stage((lane.name, State.RUNNING), self._broken(lane))
            if State.IN_DOUBT in self._wanted and lane.spec.can_look_up:
                yield LookUp(lane, operations).stage((lane.name, State.IN_DOUBT), self._broken(lane))
        if State.READY in self._wanted:
            yield Fetch(lane, self._directory).stage((lane.name, State.READY), self._broken(lane))

    def _bug(self, error: Exception) -> None:
        self._bugs.append(repr(error))
        self._on_bug(error)

    def _broken(self, lane: Lane) -> Callable[[Sequence[Task], Exception], Awaitable[None]]:
        async def broken(batch: Sequence[Task], error: Exception) -> None:
            self._bug(error)
            await lane.put_aside(batch)

        return broken

    # the end

    async def _until_over(self) -> None:
        await self._until_idle()
        if await self._look_again():
            await self._until_idle()

    async def _until_idle(self) -> None:
        while not await self._over():
            await self._bell.wait("idle", _HEARTBEAT)

    async def _look_again(self) -> bool:
        """Once, when all else is done: whether anything that counted as lost is on its way after all (FV2)."""
        found = 0
        for lane in [] if self._late else self._lanes:
            found += await look_again(lane, self._lost.get(lane.name, ()))
        return found > 0

    async def _over(self) -> bool:
        if self._late and all(lane.breaker.outage for lane in self._lanes):
            return True  # the deadline has passed and nobody answers: the next run goes on
        # submits that look for a task and find none are no work: what one has claimed is `submitting` in the store
        if not all(stage.idle for stage in self._stages):
            return False
        return not any([await self._busy(lane) for lane in self._lanes])

    async def _busy(self, lane: Lane) -> bool:
        states = [] if lane.full else [State.READY]
        if not lane.dead:
            states += [State.RUNNING, State.IN_DOUBT]
        if self._may_submit(lane):
            states.append(State.QUEUED)
        return await self._store.busy(lane.name, self._wanted.intersection(states), lane.room)

    def _may_submit(self, lane: Lane) -> bool:
        # with the breaker open, only a doubt that is settled lets submits go on: where none is due, waiting is in vain
        return not (lane.blocked or lane.dead or self._late or lane.breaker.doubtful)

    async def _endings(self) -> AsyncIterator[Ending]:
        """Every reason that holds now."""
        counts = await self._store.counts()
        if self._bugs:
            yield Ending(Exit.BUG, self._bugs[0])
        if counts.get(State.HELD):
            yield Ending(Exit.HELD, f"{counts[State.HELD]} held: they may have been paid for, and nothing can tell")
        for lane in self._lanes:
            for ending in _lane_endings(lane):
                yield ending
        if self._signal is not None:
            yield Ending(self._signal, "stopped by a signal")
        unfinished = await self._unfinished(counts)
        if unfinished:
            yield Ending(Exit.RESUMABLE, f"{unfinished} not finished{' at the deadline' if self._late else ''}")
        failed = counts.get(State.FAILED, 0) - await self._store.given_up()
        lost = failed + counts.get(State.STRANDED, 0) + await self._store.partial()
        if lost:
            yield Ending(Exit.FAILED, f"{lost} failed, incomplete or out of reach")

    async def _unfinished(self, counts: Mapping[str, int]) -> int:
        left = sum(counts.get(state, 0) for state in (State.SUBMITTING, *self._wanted))
        return left - (await self._store.gone() if State.QUEUED in self._wanted else 0)

    # stopping

    async def _watch_signals(self) -> None:
        with anyio.open_signal_receiver(*_SIGNALS) as signals:
            tries = 0
            async for number in signals:
                tries += 1
                self._signal = self._signal or _SIGNALS[number]
                if tries > 2:  # noqa: PLR2004 - the third is meant
                    os._exit(self._signal)
                self._stop_submits(GRACE if tries == 1 else SHORT_GRACE)
                self._scope.cancel()

    async def _watch_deadline(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        self._late = True
        self._stop_submits(GRACE)
        self._bell.ring("idle")

    def _stop_submits(self, grace: float) -> None:
        for submit in self._submits.values():
            submit.stop(grace)

    async def _until_delivered(self) -> None:
        while not all(submit.idle for submit in self._submits.values()):
            await self._bell.wait("idle", 0.1)


def _groups(lane: Lane) -> list[list[str]]:
    """Operations that can be asked about together."""
    groups: dict[str, list[str]] = {}
    for operation in lane.spec.operations:
        groups.setdefault(lane.dialect.group(operation), []).append(operation)
    return list(groups.values())


def _lane_endings(lane: Lane) -> Iterator[Ending]:
    if lane.blocked is not None:
        kind, fault = lane.blocked
        said = " ".join(part for part in (fault.code, fault.message) if part)
        yield Ending(_BLOCKED[kind], f"{lane.name}: {said}")
    if lane.breaker.doubtful and not lane.blocked:
        yield Ending(Exit.RESUMABLE, f"{lane.name}: submits were stopped, since too many of them had no clear answer")
    if lane.unreachable:
        yield Ending(Exit.RESUMABLE, f"{lane.name} cannot be reached")


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error a person should hear of: ours before any other."""
    flat = list(_flat(errors))
    return next((error for error in flat if isinstance(error, RunnerError)), flat[0])


def _flat(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _flat(inner)
    else:
        yield error
