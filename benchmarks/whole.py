"""1,000 tasks at 100 and at 300 a second, each with a file of 300 kB: what the runner adds to the provider's time.

Makespan is from the first accepted submit to the last file on the disk, hashed and synced, each change of a task
committed with FULL. The bound has a submit every 1/q seconds, takes each task as long as this provider does (15 to 30
s, drawn from a seed), and learns of each end at once. CPU is the runner's, its start-up included, and that of the
thumbnails of the gallery, which other processes make for two seconds at the end: without them it was 2.3 to 2.8 ms a
task less. Of the makespan at 300 a second the polling policy alone makes 1.02 (see simulate, "all at once"); the cause
of the rest is unknown.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

from benchmarks.figure import Figure
from benchmarks.provider import sandbox
from runner.sandbox.faults import fraction

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.bench import Bench

_TASKS, _BYTES = 1_000, 300_000
_LEAST, _MOST = 15.0, 30.0


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure time, CPU, refusals and polls at both rates."""
    tasks = bench.size(_TASKS)
    rows = bench.numbered("whole", tasks)
    for rate in (100, 300):
        options = ("--qps", str(rate), "--seconds", f"{_LEAST},{_MOST}", "--file-bytes", str(_BYTES))
        manifest = bench.manifest(f"whole-{rate}", rows, rate)
        with sandbox(*options) as provider:
            usage = bench.run("run", str(manifest), "--json", provider=provider)
            stats, arrivals = provider.stats(), provider.arrivals()
        done = json.loads(usage.output)["counts"].get("done", 0)
        wrong = abs(tasks - done) + abs(tasks - stats["accepted"]) + stats["duplicates"]
        polls = sum(count for name, count in stats["requests"].items() if name.endswith("/page"))
        yield Figure(f"{rate}/s: tasks not done, or not paid exactly once", wrong, 0)
        yield Figure(f"{rate}/s: makespan / bound", (_ended(manifest) - min(arrivals)) / _bound(rate, tasks), 1.05)
        yield Figure(f"{rate}/s: CPU a task", 1000 * usage.cpu / tasks, 7.0, "ms")
        yield Figure(f"{rate}/s: requests refused as too fast", sum(stats["violations"].values()), 0)
        yield Figure(f"{rate}/s: polls a task", polls / tasks, 0.15)
        yield Figure(f"{rate}/s: peak memory", usage.peak, 80.0, "MB")


def _ended(manifest: Path) -> float:
    """Return the time when the last file was complete, in seconds since the epoch."""
    lines = (manifest.with_suffix("") / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return max(datetime.fromisoformat(json.loads(line)["finished_at"]).timestamp() for line in lines)


def _bound(rate: int, tasks: int) -> float:
    """Return the makespan if every result were pushed at once; the sandbox's seed is 0, and its tasks count from 1."""
    times = (_LEAST + (_MOST - _LEAST) * fraction(0, "time", number) for number in range(1, tasks + 1))
    return max(number / rate + seconds for number, seconds in enumerate(times))
