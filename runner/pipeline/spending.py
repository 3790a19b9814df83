"""What one provider's tasks may cost: the job's cap, and the account's cap of a day (UTC)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.lifecycle.task import Fault, State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from runner.lifecycle.task import Task
    from runner.pipeline.session import ProviderSession
    from runner.store.store import Store

#: states in which a task may have been paid for
_COUNTED = {State.SUBMITTING, State.IN_DOUBT, State.RUNNING}


class Spending:
    """Counts the cost of tasks against the caps, in the provider's unit, and stops submits at a cap.

    `count_daily(amount, at)` adds an amount to the day of that time (seconds since the epoch) and returns False if the
    account's cap forbids it; None: the account has no cap.
    """

    def __init__(
        self,
        session: ProviderSession,
        store: Store,
        *,
        max_cost: float | None = None,
        count_daily: Callable[[float, float], Awaitable[bool]] | None = None,
    ) -> None:
        self._session, self._store, self._count_daily = session, store, count_daily
        self.max_cost = max_cost
        #: when this run counted each task; what another run counted is not refunded
        self._counted_at: dict[int, float] = {}

    async def reserve(self, task: Task) -> bool:
        """Count a task that is about to be sent. Return False, and stop submits, if the day's cap forbids it."""
        if self._count_daily is None:
            return True
        at = self._session.clock.now()
        if task.cost is not None and await self._count_daily(task.cost, at):
            self._counted_at[task.id] = at
            return True
        why = "has no price" if task.cost is None else f"costs {task.cost:g} {self._session.spec.unit}"
        message = f"the account's limit for a day is reached: the next task {why}"
        self._session.block("cost", Fault("daily_cost", None, message))
        return False

    async def refund(self, before: Task, after: Task) -> None:
        """Refund what a transition showed to be unpaid, to the day in which it was counted."""
        at = self._counted_at.get(before.id)
        if after.state not in _COUNTED:
            self._counted_at.pop(before.id, None)
        if self._count_daily is not None and at is not None and after.spent < before.spent:
            await self._count_daily(after.spent - before.spent, at)

    async def stop_at_cap(self) -> None:
        """Stop submits because the next task costs more than the job's cap leaves: a pause, not a failure."""
        spent = await self._store.spent()
        unit = self._session.spec.unit
        message = f"max_cost {self.max_cost:g} {unit} leaves no room for the next task: {spent:g} spent"
        self._session.block("cost", Fault("max_cost", None, message))
