"""Begin and end of large jobs: from the start of the process to the first submit, and from TERM to its exit.

The job is begun with nothing in its directory, stopped with TERM a second after the first submit, begun again with
nothing changed, and stopped again as soon as results.jsonl was written beside the run, whose changes since then are
written after TERM. The rows come from a table and differ in their text, so their keys are hashed. Times are of one
round each.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from benchmarks.figure import Figure
from benchmarks.provider import sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.bench import Bench
    from benchmarks.provider import Provider

#: seconds that the first submit, the first one of the same job again, and the exit may take, by rows
_GOALS = {20_000: (1.0, 1.0, 1.0), 100_000: (5.0, 1.0, 1.0), 1_000_000: (40.0, 5.0, 1.0)}
_RATE = 20
#: seconds for a first submit, or an exit, after which the measure gives up
_LONGEST = 900.0


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure first submits and exits."""
    for full, goals in _GOALS.items():
        tasks = bench.size(full)
        manifest = bench.manifest(f"large-{full}", bench.numbered(f"large-{full}", tasks), _RATE, most=tasks)
        with sandbox("--seconds", "0.2,0.5") as provider:
            first, ended = _begin_and_end(bench, manifest, provider)
            results = bench.directory / manifest.stem / "results.jsonl"
            again, ended_again = _begin_and_end(bench, manifest, provider, results)
        yield Figure(f"{tasks:,} rows: first submit", first, goals[0], "s")
        yield Figure(f"{tasks:,} rows: first submit, the same again", again, goals[1], "s")
        yield Figure(f"{tasks:,} rows: TERM to exit", ended, goals[2], "s")
        yield Figure(f"{tasks:,} rows: TERM to exit, results.jsonl written before", ended_again, goals[2], "s")


def _begin_and_end(
    bench: Bench, manifest: Path, provider: Provider, awaited: Path | None = None
) -> tuple[float, float]:
    """Return the seconds from the start to the first accepted submit, and from TERM to the exit.

    TERM comes a second after that submit, and after the file `awaited` is there.
    """
    before = provider.stats()["accepted"]
    began, words = time.time(), bench.command(["run", str(manifest), "--json"])
    process = subprocess.Popen(words, env=bench.environ(provider), cwd=bench.directory, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        while provider.stats()["accepted"] == before:
            if process.poll() is not None or time.time() - began > _LONGEST:
                raise RuntimeError(f"{manifest.name} bought nothing in {time.time() - began:.0f} s")
            time.sleep(0.02)
        first = provider.arrivals()[before] - began
        time.sleep(1.0)
        while awaited is not None and not awaited.exists() and time.time() - began < _LONGEST:
            time.sleep(0.2)
        stopped = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        process.wait(_LONGEST)
        return first, time.monotonic() - stopped
    finally:
        process.kill()
        process.wait()
