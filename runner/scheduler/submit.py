"""The paid step. Permit first, then the claim on disk, then the request; the id is on disk before anything else.

A send is shielded: a run that stops waits for its answer, and what has no answer by then is in doubt.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from runner.errors import ConfigError, JobLockedError, RunnerError
from runner.providers.requests import NoAnswer, NotSent
from runner.providers.responses import read_submit
from runner.scheduler.local_images import image_values
from runner.tasks.events import Accepted, AccountBlocked, Claimed, Interrupted, Rejected, RetryableFailure
from runner.tasks.models import State, TaskError
from runner.tasks.transitions import advance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio.abc import TaskGroup

    from runner.providers.requests import Outcome
    from runner.ratelimit.limiter import Permit
    from runner.scheduler.local_images import ImageSource
    from runner.scheduler.session import ProviderSession
    from runner.scheduler.settlement import Settlement
    from runner.scheduler.spending import Spending
    from runner.tasks.events import Event
    from runner.tasks.models import Task

#: states whose tasks will free disk space or slots without a new submit
_UNDER_WAY = (State.RUNNING, State.READY, State.IN_DOUBT)
#: times 30 s that an answer in hand waits for a locked database
_TRIES = 10
#: seconds to the next scan where a claim found nothing although something is due (a duplicate in doubt, a full window)
_RESCAN = 1.0


class SubmitStage:
    """Submits one provider's queued tasks, `concurrency` at once at first, and at most `most` of them.

    One more goes out at once for each answer that comes while all workers wait for theirs, so that slow answers do not
    keep submits below the rate limit. A submit without a clear answer sets the concurrency back.

    `images` puts local images into requests; None: the provider takes none. `on_bug` is called with an unexpected
    error. The task of that error is in doubt then, and the others go on.
    """

    def __init__(
        self,
        session: ProviderSession,
        settlement: Settlement,
        spending: Spending,
        images: ImageSource | None,
        on_bug: Callable[[Exception], None],
        *,
        concurrency: int = 8,
        most: int = 8,
    ) -> None:
        self._session, self._settlement, self._spending = session, settlement, spending
        self._capacity, self._store = session.capacity, settlement.store
        self._images, self._on_bug = images, on_bug
        self._least, self._most = min(concurrency, most), most
        #: workers that there are, and that there should be
        self._workers, self._concurrency = 0, self._least
        self._group: TaskGroup | None = None
        #: when all workers waited for an answer last, on the event loop's clock
        self._all_waited_at = -math.inf
        self._turn = anyio.Lock()
        self._claiming = anyio.Lock()
        self._stopping = False
        self._due: float | None = 0.0
        self._active = 0
        #: permits whose task is not claimed yet
        self._claims = 0
        #: the user was told that submits wait for disk space
        self._reported_wait = False
        #: the user was told that submits wait, since no file can be fetched
        self._reported_failures = False
        self._on_wire: set[anyio.CancelScope] = set()

    def __repr__(self) -> str:
        return f"SubmitStage({self._session.name}, on_wire={len(self._on_wire)})"

    @property
    def idle(self) -> bool:
        """Return True if nothing is claimed or on the wire."""
        return self._active == 0

    async def run(self) -> None:
        """Submit what is due, until `stop` or cancellation."""
        async with anyio.create_task_group() as group:
            if self._images is not None:
                await group.start(self._images.run, self._on_bug)
            self._group = group
            self._start_workers()

    def stop(self, grace: float) -> None:
        """Submit nothing more. Requests on the wire have `grace` seconds to deliver their ids."""
        self._stopping = True
        self._session.may_submit = False
        for scope in self._on_wire:
            scope.deadline = min(scope.deadline, anyio.current_time() + grace)
        self._session.notifier.notify((self._session.name, State.QUEUED))

    def _start_workers(self) -> None:
        while self._group is not None and self._workers < self._concurrency:
            self._workers += 1
            self._group.start_soon(self._worker)

    def _adapt(self, event: Event, begun: float) -> None:
        """Let one more submit go out at once if all workers waited since this one began; after a doubt, few again."""
        if isinstance(event, Interrupted):
            self._concurrency = self._least
        elif isinstance(event, Accepted) and self._all_waited_at >= begun and not self._stopping:
            self._concurrency = min(self._concurrency + 1, self._most)
            self._start_workers()

    async def _worker(self) -> None:
        """Take turns for a permit, then claim and send side by side with the other workers.

        The first submit of a run goes alone, and so does one that tries again for a free slot. Until two tasks were
        accepted that the provider's list must show, each goes alone: of several lost answers none could be judged.
        """
        while not self._stopping and self._workers <= self._concurrency:
            async with self._turn:
                permit = await self._acquire_permit()
                if permit is not None and self._goes_alone():
                    await self._submit_one(permit)
                    permit = None
            if permit is not None:
                await self._submit_one(permit)
        self._workers -= 1

    def _goes_alone(self) -> bool:
        session = self._session
        breaker = session.breaker
        alone = not session.proved or not session.has_witnesses or breaker.admits_witness or breaker.paused
        return alone or bool(self._capacity.contention.refusals)

    async def _submit_one(self, permit: Permit) -> None:
        """Claim a task and send it, shielded: a claim that is never sent would look like a doubt."""
        with anyio.CancelScope(shield=True):
            self._active += 1
            begun = anyio.current_time()
            if self._active >= self._workers:
                self._all_waited_at = begun
            try:
                task = await self._claim(permit)
                if task is not None:
                    self._session.breaker.end_admission()
                    self._adapt(await self._send(task, permit), begun)
            finally:
                self._active -= 1
                self._session.notifier.notify("idle")

    async def _is_trusted(self) -> bool:
        """Return True if something may be bought, after what the account's other jobs have learned until now."""
        session = self._session
        await session.refusals.refresh()
        if session.refusals.distrusted:
            session.block_distrusted()
        return not session.refusals.distrusted

    async def _acquire_permit(self) -> Permit | None:
        """Wait until a task is due and the breaker is closed, and return a permit; None: check again."""
        session = self._session
        await session.breaker.until_safe()
        now = session.clock.now()
        if self._due is None or self._due > now:
            await self._pause(None if self._due is None else self._due - now)
        await session.compare_clocks()
        contended = self._capacity.contention.wait(session.clock.now())
        blocked = self._stopping or session.blocked or contended or self._capacity.free_slots <= 0
        blocked = blocked or session.refusals.paused or self._waits_for_downloads()
        if blocked or not await self._has_disk_space():
            await self._pause(contended or _RESCAN)
            return None
        permit = await session.limiters["submit"].acquire()
        if self._stopping or session.blocked or session.breaker.doubtful or session.breaker.outage:
            permit.release()
            return None
        return permit

    def _waits_for_downloads(self) -> bool:
        """Return True while what is paid must be fetched first. Tell the user once if no file can be fetched."""
        backlog = self._capacity.backlog
        if not backlog.is_full(self._session.clock.monotonic()):
            return False
        if backlog.out_of_reach and not self._reported_failures:
            self._reported_failures = True
            until = "nothing more is bought until one comes, or for 15 minutes"
            self._session.on_warning(f"{self._session.name}: {backlog.reason}: {until}")
        return True

    async def _has_disk_space(self) -> bool:
        """Return True if one more output fits. Block if it does not, and no task under way can free space."""
        if self._capacity.has_disk_space(self._claims + 1):
            return True
        if not await self._store.has_work(self._session.name, _UNDER_WAY):
            self._session.block_disk()
        elif not self._reported_wait:
            self._reported_wait = True
            reason = "submits wait until what is under way has been downloaded, since the disk is small"
            self._session.on_warning(f"{self._session.name}: {reason}")
        return False

    async def _pause(self, seconds: float | None = _RESCAN) -> None:
        if self._stopping:
            return
        await self._session.notifier.wait((self._session.name, State.QUEUED), seconds)
        self._due = 0.0

    async def _claim(self, permit: Permit) -> Task | None:
        """Claim the next task, one at a time where there is a window."""
        self._claims += 1
        try:
            if not await self._is_trusted():
                permit.release()
                return None
            async with self._claiming if self._capacity.window.size is not None else nullcontext():
                return await self._claim_next(permit)
        finally:
            self._claims -= 1

    async def _claim_next(self, permit: Permit) -> Task | None:
        """Return the next task, `submitting` on disk. Without one, release the permit and return None."""
        session, images, claimed = self._session, self._images, []
        if not session.may_claim():
            permit.release()
            return None
        event = Claimed(session.clock.moment(), session.clock.now())

        def claim(task: Task) -> Task | None:
            claimed.append(task)
            ready = images is None or images.is_ready(task)
            return advance(task, event, event.at, self._settlement.policy) if ready else None

        while True:
            claimed.clear()
            task = await self._store.claim_queued(
                session.name,
                event.at,
                self._capacity.free_slots,
                claim,
                self._spending.max_cost,
                images.held if images is not None else (),
            )
            if task is not None or not claimed or images is None or not images.prepare(claimed[-1]):
                break
        if task == "too dear":
            permit.release()
            if session.refusals.waiting:  # their price may come back
                session.waits_for_refund, self._due = True, event.at + _RESCAN
            else:
                await self._spending.stop_at_cap()
            return None
        if task is None:
            permit.release()
            self._due = await self._store.next_due(session.name, State.QUEUED)
            if self._due is not None and self._due <= event.at:
                self._due = event.at + _RESCAN
            session.notifier.notify("idle")
            return None
        self._settlement.publish_claim(claimed[-1], event, task)
        return task

    async def _send(self, task: Task, permit: Permit) -> Event:
        """Send a claimed task, settle it and return the event of its answer."""
        images = await self._prepare(task, permit)
        if not isinstance(images, dict):
            permit.release()
            await self._settlement.settle(task, images)
            return images
        outcome = await self._exchange(task, permit, images)
        self._settlement.failpoint("answer received")
        event = self._read(outcome)
        if isinstance(event, Interrupted) and (error := await self._check_address(outcome)) is not None:
            event = AccountBlocked("configuration", error)
        elif isinstance(event, AccountBlocked) and self._session.contradicts_sales(task.operation, event.kind, outcome):
            # a proxy may have put its page in the place of an answer
            event = Interrupted(f"{event.error.message or 'a text in the place of an answer'}, where tasks were bought")
        if not isinstance(event, Accepted):
            await self._session.refusals.refresh()
            event = self._session.refusals.check(task, event)
        # the bytes left some time after the claim, at the latest now: if this is a doubt, its quiet time starts here
        task = replace(task, sent=self._session.clock.moment())
        for tries in range(_TRIES):
            try:
                await self._settlement.settle(task, event)
            except Exception as error:
                if isinstance(error, JobLockedError) and tries + 1 < _TRIES:
                    continue  # another process holds the database: an id in hand is worth waiting for
                self._settlement.last_resort(task, event)
                raise
            break
        return event

    async def _prepare(self, task: Task, permit: Permit) -> dict[str, str] | Rejected | RetryableFailure:
        """Reserve the task's cost and return its image values, or why it is not sent. Not a byte has left until then.

        An error that ends the run must not leave a doubt behind: the task is settled as unsent before it is raised.
        """
        stopped = RetryableFailure("unsent", TaskError("stopped", None, "submits were stopped before it was sent"))
        try:
            if self._settlement.claims is not None:
                self._settlement.claims.check()
            # counted before anything else can end it, since whatever ends it refunds what was counted
            if not await self._spending.reserve(task) or self._stopping:
                return stopped
            try:
                images = await image_values(self._images, task, self._session.name)
            except (RunnerError, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001 - a bug in one task's work must not stop the others
                self._on_bug(error)
                return RetryableFailure("trouble", TaskError("image", None, f"internal error: {error!r}"))
        except (RunnerError, MemoryError) as error:
            permit.release()
            reason = error.message if isinstance(error, RunnerError) else repr(error)
            unsent = RetryableFailure("unsent", TaskError("stopped", None, f"it was not sent: {reason}"))
            await self._settlement.settle(task, unsent)
            raise
        return stopped if self._stopping or self._session.fence else images

    async def _exchange(self, task: Task, permit: Permit, images: Mapping[str, str]) -> Outcome:
        """Send the request and return its outcome. Where the grace runs out first, the outcome is unknown."""
        with anyio.CancelScope() as scope:
            self._on_wire.add(scope)
            try:
                return await self._session.send(self._session.dialect.submit(task, images), permit)
            except ConfigError as error:
                return NotSent(str(error), terminal=True)  # raised where credentials are fetched: nothing has left
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - a bug after the bytes left must not lose the doubt
                self._on_bug(error)
                return NoAnswer(f"internal error: {error!r}")
            finally:
                self._on_wire.discard(scope)
        return NoAnswer("the run was stopped before the answer came")

    async def _check_address(self, outcome: Outcome) -> TaskError | None:
        """Return why the address is none of an API, as `ProviderSession.check_address`; None if that is not known."""
        with anyio.CancelScope() as scope:  # a run that stops waits for this no longer than for an answer
            self._on_wire.add(scope)
            try:
                return await self._session.check_address(outcome)
            except (RunnerError, MemoryError):
                return None
            except Exception as error:  # noqa: BLE001 - a bug here must not lose the doubt
                self._on_bug(error)
            finally:
                self._on_wire.discard(scope)
        return None

    def _read(self, outcome: Outcome) -> Event:
        """Return the event of an answer. Where reading it raises a bug, the task is in doubt."""
        try:
            return read_submit(self._session.spec, outcome)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a bug in one task's work must not stop the others
            self._on_bug(error)
            return Interrupted(f"internal error: {error!r}")
