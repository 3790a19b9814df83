"""The purchases of one probe: each step's request is sent once, and never more than the probe may spend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from runner.app.probe_measure import Measured, is_paid
from runner.app.probe_plan import PICTURES
from runner.app.probe_submit import SingleSubmit
from runner.errors import StateError
from runner.tasks.models import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.app.probe_plan import ProbeJob, ProbePlan, Step
    from runner.app.probe_record import ProbeRecord
    from runner.app.run_context import RunContext
    from runner.tasks.models import Task

#: times that a request is tried which certainly never left, and seconds that it waits for its turn each time
_TRIES, _TURN = 3, 60.0
#: seconds between two questions whether a picture is uploaded
_UPLOAD_PAUSE = 0.5
#: what each step tries, for notes
TRIED: dict[Any, str] = {
    **dict.fromkeys(PICTURES, "pictures"),
    "refusal": "an invalid request",
    "task": "one task",
    "double": "double references",
    "cut": "a cut connection",
}


class Purchases:
    """The rows of one probe, and the one way in which they are sent. `say` is called with what it does next."""

    def __init__(
        self, job: ProbeJob, plan: ProbePlan, record: ProbeRecord, context: RunContext, say: Callable[[str], None]
    ) -> None:
        self._job, self._plan, self._record, self._context, self._say = job, plan, record, context, say
        self._store, self._clock, self._pipeline = context.store, context.clock, context.pipelines[0]
        self._session = self._pipeline.session
        self._stage: SingleSubmit | None = None
        self.steps = tuple(step for step, _ in job.rows)
        #: why a request was not sent, though it may be later
        self.unsent = ""

    def stop(self, grace: float) -> None:
        """Send nothing more. A request on the wire has `grace` seconds to deliver its id."""
        if self._stage is not None:
            self._stage.stop(grace)

    async def check(self) -> None:
        """Raise StateError if this probe has sent other requests than those that it would send today."""
        keys = {self._job.draft(step).key for step in self.steps}
        if any(task.key not in keys for task in await self._store.tasks_ever_sent(self._session.name)):
            raise StateError(
                f"{self._job.directory}: this probe was begun with other requests, by another version or catalogue",
                hint="Finish it there. Or move it away: `runner status` with that directory shows what it bought.",
            )

    async def buy(self, step: Step, doing: str, *, first: Task | None = None) -> Task | None:
        """Send a step's request, unless it was ever sent. Return its row, or None if nothing was and may be sent."""
        task = await self.row(step)
        if is_paid(task) or task.state is State.FAILED:
            return task
        if step not in self._plan.steps:
            return None
        used = await self._used()
        if used >= self._plan.spend:
            note = f"{TRIED[step]}: not tried, since --spend {self._plan.spend} is used up"
            await self._record.keep("", Measured(notes=[note]))
            return None
        await self.hold_only([*await self.sent(), step])
        self._say(doing)
        for _ in range(_TRIES):
            await self._send_queued(first)
            task = await self.row(step)
            if task.state is not State.QUEUED or self._session.blocked or self._session.dead:
                break
            await anyio.sleep(max(0.0, (task.due_at or 0.0) - self._clock.now()))
        if task.state is not State.QUEUED:
            return task
        why = task.error.message or task.reason or "the provider takes no submits now"
        if self._session.blocked is None:
            self.unsent = f"{TRIED[step]}: not sent ({why}); the same command tries again"
        return None

    async def _send_queued(self, first: Task | None) -> None:
        pipeline = self._pipeline
        stage = SingleSubmit(
            self._session, pipeline.settlement, pipeline.spending, pipeline.images, self._context.observer.report_bug
        )
        stage.first, self._stage = first, stage
        try:
            # only the wait for a turn is bounded: what is sent is shielded, and ends by its own deadline
            with anyio.move_on_after(_TURN):
                await stage.send_next()
                while pipeline.images is not None and pipeline.images.held:
                    await anyio.sleep(_UPLOAD_PAUSE)
                    await stage.send_next()
        finally:
            self._stage = None

    async def _used(self) -> int:
        """Return how many tasks were bought or may have been. A refusal counts until it was seen to leave nothing."""
        rows = {step: await self.row(step) for step in self.steps}
        used = sum(is_paid(row) for row in rows.values())
        refusal = rows["refusal"]
        is_free = any(fact.name == "refusal" and fact.state == "measured" for fact in self._record.facts)
        return used + (refusal.state is State.FAILED and not is_paid(refusal) and not is_free)

    async def row(self, step: Step) -> Task:
        (task,) = await self._store.find_by_key_prefix(self._job.draft(step).key)
        return task

    async def sent(self) -> list[Step]:
        """Return the steps whose requests were sent, or may have been."""
        return [step for step in self.steps if (await self.row(step)).submitted_at is not None]

    async def hold_only(self, steps: list[Step]) -> None:
        """Let only these steps be due."""
        keys = {self._job.draft(step).key for step in steps}
        wanted = [each for each in self._job.additions() if each.draft.key in keys]
        await self._store.add(wanted, f"probe: {', '.join(steps)}", self._clock.now(), self._job.manifest.naming)
