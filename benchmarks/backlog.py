"""Paid results that wait for their download where the processor is the limit, with the bound on them and without.

5,000 tasks of half a second each may be submitted at 1,000 a second, far more than one process can take through all
stages. Without the bound submits go on while results pile up. Samples are read from the job's database, ten a second.
The two runs follow each other on one machine, so that the ratios count. The bound follows from what was measured, and
nothing is known before the first downloads have ended.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.figure import Figure
from benchmarks.provider import sandbox
from runner.errors import RunnerError
from runner.store.read_only import open_read_only

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.bench import Bench

_TASKS, _RATE = 5_000, 1_000
_SAMPLE_SECONDS = 0.1
_LONGEST = 600.0


class _Measured(NamedTuple):
    """The most results that waited at once, the seconds that the run took, and the tasks not paid once and done."""

    waiting: int
    seconds: float
    wrong: int


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure both runs."""
    tasks = bench.size(_TASKS)
    rows = bench.numbered("backlog", tasks)
    before = _run(bench, "unbounded", [sys.executable, "-m", "benchmarks.unbounded"], rows, tasks)
    now = _run(bench, "bounded", [sys.executable, "-m", "runner"], rows, tasks)
    yield Figure("paid results waiting at once / without the bound", now.waiting / max(1, before.waiting), 0.25)
    yield Figure("paid results waiting at once", now.waiting)
    yield Figure("the same without the bound", before.waiting)
    yield Figure("time of the run / without the bound", now.seconds / before.seconds, 1.05)
    yield Figure("tasks not done, or not paid exactly once", now.wrong + before.wrong, 0)


def _run(bench: Bench, name: str, command: Sequence[str], rows: Path, tasks: int) -> _Measured:
    manifest = bench.manifest(name, rows, _RATE)
    state = manifest.with_suffix("") / ".runner"
    with sandbox("--qps", str(_RATE), "--seconds", "0.4,0.6") as provider:
        began = time.monotonic()
        process = subprocess.Popen(
            [*command, "run", str(manifest), "--quiet"],
            env=bench.environ(provider),
            cwd=bench.directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            counts, most = {}, 0
            while process.poll() is None and time.monotonic() - began < _LONGEST:
                counts = _counts(state) or counts
                most = max(most, counts.get("ready", 0))
                time.sleep(_SAMPLE_SECONDS)
            seconds = time.monotonic() - began
        finally:
            process.kill()
            process.wait()
        stats = provider.stats()
    wrong = abs(tasks - (_counts(state) or {}).get("done", 0)) + abs(tasks - stats["accepted"]) + stats["duplicates"]
    return _Measured(most, seconds, wrong)


def _counts(state: Path) -> dict[str, int] | None:
    """Return the job's counts by state, or None before there is a database."""
    try:
        with open_read_only(state) as job:
            return job.counts()
    except RunnerError:
        return None
