"""A million tasks: planned from a CSV file, added to a store, and resumed when 99 in 100 of them are done.

"begin" is from the opening of the store to its first claim, with every query of a run in between; `status` is the whole
process. Both are warm: the file was just written.
"""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

from benchmarks.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.bench import Bench

_TASKS = 1_000_000


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure CPU, memory and time."""
    tasks = bench.size(_TASKS)
    rows = _written(bench.directory / "million.csv", tasks)
    planned = bench.run("plan", str(bench.manifest("million", rows, 20, most=tasks)), "--json")
    yield Figure("plan: CPU a task", 1e6 * planned.cpu / tasks, 25.0, "µs")
    yield Figure("plan: peak memory", planned.peak, 120.0, "MB")
    folder = bench.directory / "filled"
    folder.mkdir()
    filled = bench.python("-m", "benchmarks.filling", str(folder), str(tasks))
    yield Figure("add: CPU a task", 1e6 * float(filled.output.split()[1]) / tasks, unit="µs")
    yield Figure("add: peak memory", filled.peak, 120.0, "MB")
    begun = bench.python("-m", "benchmarks.filling", str(folder))
    yield Figure("begin: to the first claim", float(begun.output.split()[0]), 1.5, "s")
    yield Figure("begin: peak memory", begun.peak, 120.0, "MB")
    seconds, _ = bench.against_nothing("status", str(folder), rounds=5)
    yield Figure("`status DIR`", seconds, 0.3, "s")
    yield Figure("`export DIR`: to the first line", _first_line(bench, folder), 1.0, "s")
    exported = bench.run("export", str(folder), "-o", str(bench.directory / "export.jsonl"))
    yield Figure("`export DIR`: peak memory", exported.peak, 60.0, "MB")
    yield Figure("`export DIR`: CPU a task", 1e6 * exported.cpu / tasks, unit="µs")
    shown = bench.run("gallery", str(folder))
    yield Figure("`gallery DIR`: peak memory", shown.peak, 120.0, "MB")
    yield Figure("`gallery DIR`", shown.seconds, unit="s")
    seen = bench.python("-c", _LIVE, str(folder))
    yield Figure("live page: a snapshot", float(seen.output), 0.1, "s")


#: prints how long the live page takes to read the state of a job
_LIVE = """
import sys, time
from pathlib import Path
from runner.app.live_jobs import _WatchedJob
job = _WatchedJob(Path(sys.argv[1]), "x")
began = time.perf_counter()
assert job.refresh(1.0)
print(time.perf_counter() - began)
"""


def _first_line(bench: Bench, folder: Path) -> float:
    """Return the seconds to the first line of an export, which is then ended."""
    began = time.perf_counter()
    with subprocess.Popen(
        bench.command(["export", str(folder)]), env=bench.environ(None), cwd=bench.directory, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b'{"key":')
        took = time.perf_counter() - began
        process.kill()
    return took


def _written(path: Path, tasks: int) -> Path:
    with path.open("w", encoding="utf-8") as file:
        file.write("Prompt,mood\n")
        file.writelines(f'"a lighthouse, number {number}, at dusk",calm\n' for number in range(tasks))
    return path
