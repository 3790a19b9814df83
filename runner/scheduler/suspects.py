"""Judge a refused submit that no reading shows: whether its refusal may be believed.

Its request is not under way, since its answer has come. So a task that was made under the refusal stands in the list
before whatever was accepted afterwards. The next accepted tasks are witnesses once the list has had four times as long
as it took to show them: seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runner.tasks.events import Missing
from runner.tasks.retry_policy import suspect_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
#: seconds until a suspect that no reading can clear yet is claimed again, at the least
_SHORTEST_WAIT = 1.0
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


def time_to_look(task: Task, facts: ListFacts, clock: Clock, missed_at: Mapping[int, float], *, is_open: bool) -> float:
    """Return the seconds until a reading can clear a suspect; 0.0: it can now.

    While others go on (`is_open`) two accepted tasks must follow, or the quiet time be over; and some task must have
    been accepted since the latest reading without it, whose time on the boot clock is in `missed_at`. Else the list
    must have had its time, unless a reading is wanted to see how late it is.
    """
    if not task.is_suspect or task.sent is None:
        return 0.0
    waited = clock.since(task.sent.boot, task.sent.seconds, clock.moment())
    own = [each for each in facts if each.answered.boot == clock.boot]
    later = sorted(each.claimed_seconds for each in own)[-FOLLOWERS:]
    is_followed = task.sent.boot == clock.boot and len(later) == FOLLOWERS and later[0] >= task.sent.seconds
    if is_open and is_followed:
        return max(0.0, min(_SHORTEST, facts.quiet_time) - waited)
    latest, looked_at = max((each.answered.seconds for each in own), default=0.0), missed_at.get(task.id)
    is_known = looked_at is not None and looked_at >= max(latest, task.sent.seconds)
    if is_open:
        return math.inf if is_known else max(0.0, facts.quiet_time - waited)
    return max(0.0, facts.lag_bound - waited) if is_known and not facts.awaited else 0.0


async def postpone_suspects(
    batch: Sequence[Task],
    facts: ListFacts,
    settlement: Settlement,
    clock: Clock,
    missed_at: Mapping[int, float],
    *,
    is_open: bool,
) -> Sequence[Task]:
    """Postpone suspects that no reading can clear yet. Return the tasks to look for now.

    So an honest provider is asked once.
    """
    now, rest = clock.now(), []
    for task in batch:
        seconds = time_to_look(task, facts, clock, missed_at, is_open=is_open)
        if seconds > 0.0:
            # what is due within half a second is claimed at once
            due_at = now + max(_SHORTEST_WAIT, min(seconds, suspect_interval(settlement.policy, task.absences)))
            await settlement.store.settle(task, replace(task, due_at=due_at))
        else:
            rest.append(task)
    return rest


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
