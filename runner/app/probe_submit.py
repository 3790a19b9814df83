"""The paid requests of a probe: each is sent once, through the submit stage of every run, and never again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from runner.providers.requests import Reply
from runner.providers.responses import is_unclear
from runner.scheduler.submit import SubmitStage
from runner.tasks.events import Accepted, AccountBlocked, Interrupted, Rejected, RetryableFailure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.providers.requests import Outcome
    from runner.ratelimit.limiter import Permit
    from runner.tasks.events import Event
    from runner.tasks.models import Task

#: beginning of `Task.reason` of a double request that was answered with the first task, and of one that was refused
SAME_TASK, REFUSED = "answered with the first task", "refused: "


class SingleSubmit(SubmitStage):
    """Sends the one task that is queued.

    With `first`, an accepted task, the request goes out under that task's reference. Unless it is accepted as another
    task it is held then, whatever the answer: no reconcile could tell the two apart, so the probe decides.
    """

    first: Task | None = None

    async def send_next(self) -> None:
        """Wait for a permit, and send the task that is due, if one is. Returns early if nothing may be sent."""
        permit = await self._acquire_permit()
        if permit is not None:
            await self._submit_one(permit)

    async def _exchange(self, task: Task, permit: Permit, images: Mapping[str, str]) -> Outcome:
        reference = task.ref if self.first is None else self.first.ref
        return await super()._exchange(replace(task, ref=reference), permit, images)

    def _read(self, outcome: Outcome) -> Event:
        event = super()._read(outcome)
        if self.first is None:
            return event
        match event:
            case Accepted(remote_id) if remote_id == self.first.remote_id:
                return Interrupted(SAME_TASK, hopeless=True)
            case Interrupted(reason) if isinstance(outcome, Reply) and not is_unclear(outcome.status):
                return Interrupted(f"{REFUSED}{reason}", hopeless=True)
            case Interrupted(reason):
                return Interrupted(reason, hopeless=True)
            case RetryableFailure() | AccountBlocked() if isinstance(outcome, Reply):
                return Interrupted(f"{event.error.code} {event.error.message}", hopeless=True)
            case Rejected(error):
                return Interrupted(f"{REFUSED}{error.code} {error.message}", hopeless=True)
            case _:
                return event
