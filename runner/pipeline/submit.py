"""The paid step. Permit first, then the claim on disk, then the request; the id is on disk before anything else.

A send is shielded: whoever stops the run waits for its answer, and what has no answer by then is in doubt.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from runner.errors import ConfigError, Locked, RunnerError
from runner.lifecycle.events import Claimed, Interrupted, Refused, Setback
from runner.lifecycle.task import Fault, State
from runner.lifecycle.transitions import advance
from runner.pipeline.attach import attached
from runner.providers.exchange import NoAnswer, NotSent
from runner.providers.reading import read_submit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner.lifecycle.events import Event
    from runner.lifecycle.task import Task
    from runner.net.limiter import Permit
    from runner.pipeline.lane import Lane
    from runner.providers.exchange import Outcome

#: states whose tasks will need room on the disk without our doing
_UNDER_WAY = (State.RUNNING, State.READY, State.IN_DOUBT)
#: times 30 s that an answer in hand waits for a locked database
_TRIES = 10
#: seconds to look again where a claim found nothing although something is due (a twin in doubt, a full window)
_LOOK_AGAIN = 1.0


class Submit:
    """One provider's submits."""

    def __init__(self, lane: Lane, on_bug: Callable[[Exception], None]) -> None:
        """`on_bug` hears of what must not be; its task is in doubt then, and the others go on."""
        self._lane, self._on_bug = lane, on_bug
        self._turn = anyio.Lock()
        self._stopping = False
        self._due: float | None = 0.0
        self._claiming = anyio.Lock()
        self._active = 0
        #: permits whose task is not claimed yet
        self._claims = 0
        #: submits have waited for room on the disk
        self._waited = False
        self._on_wire: set[anyio.CancelScope] = set()

    def __repr__(self) -> str:
        return f"Submit({self._lane.name}, on_wire={len(self._on_wire)})"

    @property
    def idle(self) -> bool:
        """Whether nothing is claimed or on the wire."""
        return self._active == 0

    async def run(self) -> None:
        """Submit what is due; for ever, or until `stop`."""
        async with anyio.create_task_group() as group:
            if self._lane.attach is not None:
                await group.start(self._lane.attach.run, self._on_bug)
            for _ in range(self._lane.hands):
                group.start_soon(self._hand)

    def stop(self, grace: float) -> None:
        """Submit nothing more; what is on the wire has `grace` seconds to deliver its ids."""
        self._stopping = True
        for scope in self._on_wire:
            scope.deadline = min(scope.deadline, anyio.current_time() + grace)
        self._lane.bell.ring((self._lane.name, State.QUEUED))

    async def _hand(self) -> None:
        """Take turns for a permit; then, side by side, claim and send. The first of a run goes alone, as does a try."""
        while not self._stopping:
            async with self._turn:
                permit = await self._permit()
                if permit is not None and (not self._lane.proved or self._lane.crowd.refusals):
                    await self._one(permit)
                    permit = None
            if permit is not None:
                await self._one(permit)

    async def _one(self, permit: Permit) -> None:
        """Claim and send, out of reach of any cancellation: a claim that is never sent would look like a doubt."""
        with anyio.CancelScope(shield=True):
            self._active += 1
            try:
                task = await self._claimed(permit)
                if task is not None:
                    await self._send(task, permit)
            finally:
                self._active -= 1
                self._lane.bell.ring("idle")

    async def _permit(self) -> Permit | None:
        """A permit, once something is due, the window has room and the breaker is closed; None: look again."""
        lane = self._lane
        await lane.breaker.until_safe()
        await self._until_due()
        await lane.compare_clocks()
        crowded = lane.crowd.wait(lane.clock.now())
        if self._stopping or lane.blocked or crowded or lane.room <= 0 or not await self._has_space():
            await self._pause(crowded or _LOOK_AGAIN)
            return None
        permit = await lane.limiters["submit"].acquire()
        if self._stopping or lane.blocked or lane.breaker.doubtful or lane.breaker.outage:
            permit.release()
            return None
        return permit

    async def _has_space(self) -> bool:
        """Whether one more output will fit; where nothing is under way that could make room, nothing will (FD2)."""
        lane = self._lane
        if lane.has_space(self._claims + 1):
            return True
        if not await lane.store.busy(lane.name, _UNDER_WAY):
            lane.fill()
        elif not self._waited:
            self._waited = True
            lane.notice(
                f"{lane.name}: submits wait until what is under way has been downloaded, since the disk is small"
            )
        return False

    async def _until_due(self) -> None:
        now = self._lane.clock.now()
        if self._due is None or self._due > now:
            await self._pause(None if self._due is None else self._due - now)

    async def _pause(self, seconds: float | None = _LOOK_AGAIN) -> None:
        if self._stopping:
            return
        await self._lane.bell.wait((self._lane.name, State.QUEUED), seconds)
        self._due = 0.0

    async def _claimed(self, permit: Permit) -> Task | None:
        """The next task; where there is a window, claimed one by one."""
        self._claims += 1
        try:
            async with self._claiming if self._lane.window.size is not None else nullcontext():
                return await self._claim(permit)
        finally:
            self._claims -= 1

    async def _claim(self, permit: Permit) -> Task | None:
        """The next task, `submitting` on disk; without one the permit goes back."""
        lane, was = self._lane, []
        event = Claimed(lane.clock.moment(), lane.clock.now())

        def claimed(task: Task) -> Task | None:
            was.append(task)
            ready = lane.attach is None or lane.attach.ready(task)
            return advance(task, event, event.at, lane.patience) if ready else None

        while True:
            was.clear()
            held = lane.attach.held if lane.attach is not None else ()
            task = await lane.store.claim_queued(lane.name, event.at, lane.room, claimed, lane.max_cost, held)
            if task is not None or not was or lane.attach is None or not lane.attach.begin(was[-1]):
                break
        if task == "too dear":
            permit.release()
            await lane.too_dear()
            return None
        if task is None:
            permit.release()
            self._due = await lane.store.next_due(lane.name, State.QUEUED)
            if self._due is not None and self._due <= event.at:
                self._due = event.at + _LOOK_AGAIN
            lane.bell.ring("idle")
            return None
        lane.claimed(was[-1], event, task)
        return task

    async def _send(self, task: Task, permit: Permit) -> None:
        pictures = await self._unless_broken(task, permit)
        if not isinstance(pictures, dict):
            permit.release()
            await self._lane.settle(task, pictures)
            return
        outcome = await self._outcome(task, permit, pictures)
        self._lane.reach("answer received")
        event = self._read(outcome)
        # the bytes left some time after the claim, at the latest now: if this is a doubt, D counts from here (R4)
        task = replace(task, sent=self._lane.clock.moment())
        for tries in range(_TRIES):
            try:
                await self._lane.settle(task, event)
            except Exception as error:
                if isinstance(error, Locked) and tries + 1 < _TRIES:
                    continue  # somebody holds the database: an id in hand is worth waiting for (FD5)
                self._lane.emergency(task, event)
                raise
            return

    async def _unless_broken(self, task: Task, permit: Permit) -> dict[str, str] | Refused | Setback:
        """What ends the run before a byte has left must not leave a doubt behind: the task is as it was."""
        try:
            return await self._pictures(task)
        except (RunnerError, MemoryError) as error:
            permit.release()
            said = error.message if isinstance(error, RunnerError) else repr(error)
            await self._lane.settle(task, Setback("unsent", Fault("stopped", None, f"it was not sent: {said}")))
            raise

    async def _pictures(self, task: Task) -> dict[str, str] | Refused | Setback:
        """What is sent in the place of each local picture; or why the task is not sent, nothing of which has left."""
        stopped = Setback("unsent", Fault("stopped", None, "submits were stopped before it was sent"))
        # counted before anything else can end it, since whatever ends it gives back what was counted
        if not await self._lane.afford(task) or self._stopping:
            return stopped
        try:
            pictures = await attached(self._lane, task)
        except (RunnerError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - the others go on (FP14)
            self._on_bug(error)
            return Setback("trouble", Fault("image", None, f"internal error: {error!r}"))
        return stopped if self._stopping else pictures

    async def _outcome(self, task: Task, permit: Permit, pictures: Mapping[str, str]) -> Outcome:
        """The answer; a grace that runs out is no answer, never a silence of ours."""
        with anyio.CancelScope() as scope:
            self._on_wire.add(scope)
            try:
                return await self._lane.send(self._lane.dialect.submit(task, pictures), permit)
            except ConfigError as error:
                return NotSent(str(error), terminal=True)  # raised where credentials are fetched: nothing has left
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - a bug after the bytes left must not lose the doubt (I6)
                self._on_bug(error)
                return NoAnswer(f"internal error: {error!r}")
            finally:
                self._on_wire.discard(scope)
        return NoAnswer("the run was stopped before the answer came")

    def _read(self, outcome: Outcome) -> Event:
        """What the answer says; where reading it is a bug, it is in doubt."""
        try:
            return read_submit(self._lane.spec, outcome)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - the others go on (FP14)
            self._on_bug(error)
            return Interrupted(f"internal error: {error!r}")
