"""PartiPrompts' 1,632 prompts at 200 a second: submitted, polled, downloaded, checked, on disk.

Each file is hashed and synced, each change of a task is committed with FULL. CPU and memory are the runner's alone, its
start-up included. The ideal is 1632/200 s: it leaves out start-up, the tasks' own 0.2 to 0.5 s and the last download.
The provider is Python too and has its share of the same cores. The manifest allows eight downloads at once: Chanjing's
spec allows two, since its CDN refuses more, and then downloads decide.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks.bench import QPS, TASKS
from benchmarks.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench, Finished


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure completeness, CPU, memory and time of one run."""
    job = bench.parti
    stats, arrivals = job.provider.stats(), job.provider.arrivals()
    yield Figure("tasks not done, or not paid exactly once", _wrong_tasks(job), 0)
    yield Figure("requests refused as too fast", sum(stats["violations"].values()), 1)
    yield Figure("CPU a task", 1000 * job.usage.cpu / TASKS, 7.0, "ms")
    yield Figure("peak memory", job.usage.peak, 80.0, "MB")
    yield Figure("first to last submit / ideal", (max(arrivals) - min(arrivals)) / ((TASKS - 1) / QPS), 1.05)
    yield Figure("whole process / ideal", job.usage.seconds / (TASKS / QPS))
    yield Figure("polls a task", _polls(stats["requests"]) / TASKS, 0.15)


def _wrong_tasks(job: Finished) -> int:
    stats = job.provider.stats()
    done = json.loads(job.usage.output)["counts"].get("done", 0)
    wrong: int = abs(TASKS - done) + abs(TASKS - stats["accepted"]) + stats["duplicates"]
    return wrong


def _polls(requests: dict[str, int]) -> int:
    return sum(count for endpoint, count in requests.items() if endpoint.endswith("/page"))
