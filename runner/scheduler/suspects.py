"""Judge a refused submit that no reading shows: whether its refusal may be believed.

Its request is not under way, since its answer has come. So a task that was made under the refusal stands in the list
before whatever was accepted afterwards. The next accepted tasks are witnesses once the list has had four times as long
as it took to show them: seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runner.tasks.events import Missing
from runner.tasks.retry_policy import suspect_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runner.scheduler.clock import Clock
    from runner.scheduler.evidence import Absence, OwnRows
    from runner.scheduler.list_facts import ListFacts
    from runner.scheduler.refusals import Verdict
    from runner.scheduler.settlement import Settlement
    from runner.tasks.models import Task

#: own tasks, accepted since, that a reading must show to clear a refused one
FOLLOWERS = 2
#: seconds after its answer before which a refused submit is not cleared
_SHORTEST = 4.0
#: seconds that a run which can buy nothing more waits for the list to tell about a refusal
_SOON = 30.0


@dataclass(frozen=True, slots=True)
class SuspectView:
    """What a run knows when it judges a refused submit; times in seconds."""

    #: what is known of its code
    code: Verdict
    #: since its answer, or the latest send of a request like it
    waited: float
    #: after which absence counts as usual, and by which the list has shown what was made
    quiet_time: float
    lag_bound: float
    #: after which the later tasks of this reading prove its absence
    proof_after: float
    #: another task can still be accepted in this run
    is_open: bool
    #: nothing more is bought in this run
    is_blocked: bool = False
    #: an absence is believed only with a witness
    witnessed_only: bool = False


def early_suspects(batch: Iterable[Task], facts: ListFacts, clock: Clock, missed_at: Mapping[int, float]) -> list[Task]:
    """Return the suspects that no reading can clear yet.

    Too few accepted tasks follow, or the list may be late; or none was accepted since the latest reading without the
    suspect, whose time on the boot clock is in `missed_at`.
    """
    moment, early = clock.moment(), []
    claims = sorted(each.claimed_seconds for each in facts if each.answered.boot == clock.boot)
    latest = max((each.answered.seconds for each in facts if each.answered.boot == clock.boot), default=0.0)
    for task in batch:
        if task.is_suspect and task.sent is not None:
            waited = clock.since(task.sent.boot, task.sent.seconds, moment)
            later = claims[-FOLLOWERS:]
            is_followed = task.sent.boot == clock.boot and len(later) == FOLLOWERS and later[0] >= task.sent.seconds
            looked_at = missed_at.get(task.id)
            is_known = not is_followed and looked_at is not None and looked_at >= max(latest, task.sent.seconds)
            if is_known or waited < (min(_SHORTEST, facts.quiet_time) if is_followed else facts.quiet_time):
                early.append(task)
    return early


async def postpone_suspects(
    batch: Sequence[Task], facts: ListFacts, settlement: Settlement, clock: Clock, missed_at: Mapping[int, float]
) -> Sequence[Task]:
    """Postpone suspects while others go on and no reading can clear them. Return the tasks to look for now.

    So an honest provider is asked once.
    """
    early = early_suspects(batch, facts, clock, missed_at)
    for task in early:
        due_at = clock.now() + suspect_interval(settlement.policy)
        await settlement.store.settle(task, replace(task, due_at=due_at))
    return [task for task in batch if task not in early]


def proof_after(own: OwnRows, answered_at: float) -> float:
    """Return the seconds after its answer at which a reading clears a suspect, by the later own tasks that it shows.

    `answered_at` is on the boot clock. The list is as late as the youngest of them at most, and may be four times that.
    A list that is known to be slow, or shows too few of them, needs the whole quiet time.
    """
    facts, begun = own.facts, own.reading.begun
    ages = [
        own.age(each) for each in own.shown if each.answered.boot == begun.boot and each.claimed_seconds >= answered_at
    ]
    if len(ages) < FOLLOWERS or facts.quiet_time > facts.base_quiet_time:
        return facts.lag_bound
    return min(facts.quiet_time, max(_SHORTEST, 4 * min(ages)))


def judge_suspect(found: Absence, view: SuspectView) -> Missing:
    """Return the event of a refused submit by what one reading says of its absence."""
    if found.verdict == "contradicted":
        return Missing(quiet=view.waited >= view.quiet_time, provable=False, why=found.why)
    if found.verdict == "proved" and view.waited >= view.proof_after:
        return Missing(quiet=True, refundable=found.by_witness, why=found.why)
    if found.verdict in {"early", "proved"} or view.is_open:
        return Missing(quiet=False, why=found.why)
    if view.waited < view.quiet_time:
        # where nothing more can be bought anyway, the run does not wait for long: the next one looks again
        rests = view.is_blocked and view.lag_bound - view.waited > _SOON
        return Missing(quiet=rests, witnessed=False, why=found.why)
    if view.witnessed_only or view.code == "charges":
        return Missing(quiet=True, witnessed=False, why=found.why)
    # two statements agree that do not depend on each other: the refusal, and a list that nothing contradicts
    return Missing(quiet=True, refundable=False, why=f"refused, and not found: {found.why}")
