"""Where the id is saved: the one way in which a transition of a task reaches the disk, and then everybody else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from runner.scheduler.poll_schedule import HIGH, LOW
from runner.tasks.events import Accepted, Found, Interrupted, Linked, RetryableFailure, Suspected
from runner.tasks.models import State, TaskError
from runner.tasks.remote_ids import show_remote_id
from runner.tasks.transitions import advance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.scheduler.capacity import Capacity
    from runner.scheduler.poll_schedule import PollSchedule
    from runner.scheduler.session import ProviderSession
    from runner.scheduler.spending import Spending
    from runner.store.claims import Claims
    from runner.store.store import Store
    from runner.tasks.events import Event
    from runner.tasks.models import Task
    from runner.tasks.retry_policy import RetryPolicy

_TAKEN = TaskError("taken", None, "the task that was found belongs to another task already")


class Settlement:
    """Saves the transitions of one provider's tasks.

    `claims` are the remote ids that the account's other jobs hold, where the provider keeps no reference of ours.
    `on_change(before, event, after)` is called after every committed transition. `last_resort(before, event)` is called
    with an answer that could not be saved, so that its id is at least logged. `failpoint(name)` is called at the points
    where the crash tests strike.
    """

    def __init__(
        self,
        store: Store,
        session: ProviderSession,
        spending: Spending,
        schedule: PollSchedule,
        *,
        policy: RetryPolicy,
        claims: Claims | None = None,
        on_change: Callable[[Task, Event, Task], None] = lambda *_: None,
        last_resort: Callable[[Task, Event], None] = lambda *_: None,
        failpoint: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.store, self.policy, self.claims = store, policy, claims
        self.on_change, self.last_resort, self.failpoint = on_change, last_resort, failpoint
        self._session, self._spending, self._schedule = session, spending, schedule
        self._capacity: Capacity = session.capacity

    async def settle(self, before: Task, event: Event) -> Task | None:
        """Save what `event` makes of a task: decide, claim its remote id, journal, commit, publish.

        Return the task as it is on disk now, or None if its row had moved on. A remote id that belongs to another task
        puts a submit in doubt, and is never adopted. Raises RunnerError if the store cannot write.
        """
        # decide: the one table of transitions, pure
        after = advance(before, event, self._session.clock.now(), self._policy_for(before, event))
        # claim: no other job of the account may hold the id; a submit without an answer is registered as a doubt
        if not await self._claim_id(before, event):
            return await self._settle_taken(before, event)
        # journal, then commit: `store.writer` appends and syncs the line before it commits the row
        saved = await self.store.settle(before, after)
        if saved == "clash" and isinstance(event, Linked):  # another row here has that id: one purchase, one row
            return None
        if saved == "clash":
            return await self._settle_taken(before, event)
        if saved != "done":
            if isinstance(event, Accepted):  # a later run has taken the job over: no record would hold this id
                self.last_resort(before, event)
            return None
        # publish
        await self._spending.refund(before, after)
        self._update_capacity(before, after)
        self._session.record(before, event, after)
        # before the listener: a bug in it must not leave the next stage asleep
        self._session.notifier.notify((self._session.name, after.state))
        self._session.notifier.notify("idle")
        self.on_change(before, event, after)
        return after

    def publish_claim(self, before: Task, event: Event, after: Task) -> None:
        """Publish a claim for submission, which the store has committed already."""
        self._update_capacity(before, after)
        self.on_change(before, event, after)

    async def set_aside(self, tasks: Sequence[Task]) -> None:
        """Let tasks rest until the next run, and wake every stage: a bug may have struck after some were settled."""
        for task in tasks:
            resting = replace(task, due_at=None)
            await self.store.settle(task, resting)
            self._capacity.backlog.update(task, resting, self._session.clock.monotonic())
            self._session.refusals.settle_suspect(task)
        for state in State:
            self._session.notifier.notify((self._session.name, state))
        self._session.notifier.notify("idle")

    def _policy_for(self, task: Task, event: Event) -> RetryPolicy:
        """Return the retry policy, with the first poll of an accepted task where it is most useful."""
        if not isinstance(event, Accepted):
            return self.policy
        full = self._schedule.is_window_full(self._capacity.running, self._capacity.window.size)
        first = self._schedule.first_delay(task.operation, task.model, HIGH if full else LOW)
        return replace(self.policy, first_poll=first)

    async def _claim_id(self, task: Task, event: Event) -> bool:
        """Make a remote id this job's among all jobs of the account. Return False if another job holds it."""
        if self.claims is None:
            return True
        match event:
            case Accepted(remote_id):
                return await self.claims.register_accepted(remote_id)
            case Found(remote_id):
                return await self.claims.claim_found(remote_id)
            case Interrupted() | Suspected() if task.sent is not None:
                await self.claims.record_doubt(task.ref, task.fingerprint, task.sent)
        return True

    async def _settle_taken(self, before: Task, event: Event) -> Task | None:
        match event:
            case Accepted(remote_id):
                return await self.settle(
                    before, Interrupted(f"the id {show_remote_id(remote_id)} belongs to another task already")
                )
            case _:
                return await self.settle(before, RetryableFailure("trouble", _TAKEN))

    def _update_capacity(self, before: Task, after: Task) -> None:
        backlog, now = self._capacity.backlog, self._session.clock.monotonic()
        waited = bool(backlog.reason)
        backlog.update(before, after, now)
        if self._capacity.update(before, after) or (waited and not backlog.is_full(now)):
            self._session.notifier.notify((self._session.name, State.QUEUED))
