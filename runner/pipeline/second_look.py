"""Before a run ends, one question about what earlier ones have nothing to show for, and may have been made after all.

FV2: nothing but outputs changes a task, nothing is sent that costs, and whatever has no plain answer ends it. Of a task
that was bought anew the latest purchase is asked about, never an earlier one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.lifecycle.events import Finished
from runner.providers.exchange import Reply
from runner.providers.reading import read_many, read_query

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.lifecycle.events import Event
    from runner.lifecycle.task import Task
    from runner.pipeline.lane import Lane
    from runner.providers.exchange import Outcome

#: seconds after which nobody expects a result any more
YOUNG = 3 * 86_400.0
#: requests to one provider in one run
_CALLS = 20


async def lost(lane: Lane, groups: Sequence[Sequence[str]]) -> list[Sequence[Task]]:
    """What earlier runs left failed or stuck, the latest first, as calls that can be made: a bounded number of them."""
    size = lane.looks.bounds.size
    batches: list[Sequence[Task]] = []
    for operations in groups:
        most = (_CALLS - len(batches)) * size
        late = await lane.store.late(lane.name, operations, lane.clock.now() - YOUNG, most)
        batches += [late[at : at + size] for at in range(0, len(late), size)]
    return batches


async def look_again(lane: Lane, batches: Sequence[Sequence[Task]]) -> int:
    """Ask once about each; how many have outputs after all."""
    found = 0
    for batch in batches:
        events = await _asked(lane, batch)
        if events is None:
            break
        found += sum([await _settled(lane, task, events[task.id]) for task in batch])
    return found


async def _asked(lane: Lane, batch: Sequence[Task]) -> Mapping[int, Event] | None:
    """What the answer says of each; None where the provider had better be left alone."""
    if lane.dead or lane.full or lane.breaker.outage:
        return None
    if lane.spec.query.many is None:
        outcome = await lane.send(lane.dialect.query(batch[0]))
        events = {batch[0].id: read_query(lane.spec, outcome, batch[0])}
    else:
        outcome = await lane.send(lane.dialect.query_many(batch))
        events, _ = read_many(lane.spec, batch, outcome)
    return events if _is_plain(outcome) else None


def _is_plain(outcome: Outcome) -> bool:
    return isinstance(outcome, Reply) and outcome.status < 500 and outcome.status != 429  # noqa: PLR2004 - as HTTP has it


async def _settled(lane: Lane, task: Task, event: Event) -> bool:
    """Whether there are outputs after all, and the task is on its way to them."""
    return isinstance(event, Finished) and await lane.settle(task, event) is not None
