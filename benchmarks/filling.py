"""Make a job of many tasks, most of them done: `python -m benchmarks.filling DIRECTORY TASKS`.

Without TASKS a run begins on it. Prints wall time and CPU time in seconds: of adding the drafts, or from the opening of
the store to the first claim.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from runner.store.store import Store
from runner.store.task_rows import Addition
from runner.tasks.models import Draft, Moment, State, Task

_NOW = 1_790_000_000.0
_PAID = "submitted_at = :now, since = :now, sent_boot = 'b', sent_seconds = 1.0, remote_id = 'u-' || id"
#: states as a stopped run leaves them: all but one in a hundred done, some running, ten refused
_SPREAD = (
    f"update task set state = 'done', due_at = null, finished_at = :now + 30, {_PAID} where id <= 0.99 * :tasks",
    f"update task set state = 'running', due_at = :now, {_PAID} where id > 0.99 * :tasks and id <= 0.99 * :tasks + 500",
    "update task set state = 'failed', remote_id = null, reason = 'moderation' where id % 100000 = 7",
    (
        "insert into output select id, 1, 'https://a.example/' || id, id || '.png', 9, '00', null from task"
        " where state = 'done'"
    ),
)


async def fill(directory: Path, tasks: int) -> tuple[float, float]:
    """Add drafts, and set most of them to done."""
    store = await Store.open(directory / ".runner")
    request = {"ref_prompt": "x" * 200, "aspect_ratio": "1:1", "clarity": 1024}
    drafts = (
        Draft(
            sha256(b"%d" % n).hexdigest()[:32], n + 1, 1, {"n": n}, "chanjing", "image", "kling-v2-1", request, f"n{n}"
        )
        for n in range(tasks)
    )
    began, worked = time.perf_counter(), time.process_time()
    await store.add((Addition(draft, f"{draft.index:032x}") for draft in drafts), "digest", _NOW)
    took = time.perf_counter() - began, time.process_time() - worked
    await store.aclose()
    with closing(sqlite3.connect(directory / ".runner" / "state.db")) as connection, connection:
        for statement in _SPREAD:
            connection.execute(statement, {"now": _NOW, "tasks": tasks})
    return took


async def begin(directory: Path) -> tuple[float, float]:
    """Make the calls that a run makes to the store before its first request."""
    began, worked = time.perf_counter(), time.process_time()
    store = await Store.open(directory / ".runner")
    assert await store.in_state(State.SUBMITTING) == []
    await store.wake(_NOW + 60)
    assert await store.slots_taken("chanjing") == 500
    assert await store.providers_with_work() == {"chanjing"}
    assert await store.removed_unsent_count() == 0
    sent = {"sent": Moment("b", 1.0), "submitted_at": _NOW, "since": _NOW, "due_at": None}
    task = await store.claim_queued(
        "chanjing", _NOW + 60, 9, lambda task: replace(task, state=State.SUBMITTING, **sent)
    )
    assert isinstance(task, Task)
    took = time.perf_counter() - began, time.process_time() - worked
    await store.settle(task, replace(task, state=State.QUEUED, due_at=0.0, sent=None))
    await store.aclose()
    return took


if __name__ == "__main__":
    folder, *count = sys.argv[1:]
    print(*asyncio.run(fill(Path(folder), int(count[0])) if count else begin(Path(folder))))
