"""Measure durable transitions of one store: `python -m benchmarks.settling DIRECTORY TASKS WAITERS`.

Prints transitions a second, and CPU seconds of one. Each task goes from queued to done in four transitions, each on the
disk (database and journal, FULL) before its waiter goes on. A single waiter makes a commit for each.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import replace
from pathlib import Path

from runner.store.store import Store
from runner.store.task_rows import Addition
from runner.tasks.events import Accepted, Claimed, Finished, Saved
from runner.tasks.models import Draft, Moment, Output, Task
from runner.tasks.retry_policy import RetryPolicy
from runner.tasks.transitions import advance

_NOW = 1_790_000_000.0
_POLICY = RetryPolicy()
#: transitions of one task
CHANGES = 4


async def main(directory: Path, tasks: int, waiters: int) -> tuple[float, float]:
    """Return transitions a second, and CPU seconds of one."""
    store = await Store.open(directory / ".runner")
    drafts = (
        Draft(f"{n:08x}".ljust(32, "0"), n + 1, 1, {}, "p", "image", "m", {"prompt": "x" * 200}, f"n{n}")
        for n in range(tasks)
    )
    await store.add((Addition(draft, "") for draft in drafts), "digest", _NOW)
    left = iter(range(tasks))

    async def worker() -> None:
        for number in left:
            await _run_task(store, number)

    began, worked = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(waiters):
            group.create_task(worker())
    took, cpu = time.perf_counter() - began, time.process_time() - worked
    assert await store.counts() == {"done": tasks}
    await store.aclose()
    return tasks * CHANGES / took, cpu / (tasks * CHANGES)


async def _run_task(store: Store, number: int) -> None:
    claimed = Claimed(Moment("boot", 1.0), _NOW)
    task = await store.claim_queued("p", _NOW, 1, lambda task: advance(task, claimed, _NOW, _POLICY))
    assert isinstance(task, Task)
    link = Output(1, f"https://files.example/{number}.png")
    file = replace(link, file=f"n{number}.png", bytes=5, sha256="0" * 64, media_type="image/png")
    for event in (Accepted(f"u-{number}", "http 200"), Finished((link,)), Saved((file,))):
        after = advance(task, event, _NOW, _POLICY)
        assert await store.settle(task, after) == "done"
        task = after


if __name__ == "__main__":
    folder, count, at_once = sys.argv[1:]
    print(*asyncio.run(main(Path(folder), int(count), int(at_once))))
