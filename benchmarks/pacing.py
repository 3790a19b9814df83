"""The limiter alone against a strict server, which refuses what exceeds the limit in any sliding second.

10,000 requests at each rate are in virtual time, with the simulation of `tests/ratelimit`: requests take 1 to 20 ms,
one in fifty leaves 20 to 200 ms late, timers are late, replies are quick or take up to 0.4 s. Real sockets follow, the
server a process of its own, with another process that keeps one of the cores busy: 10,000 at 500 a second and 2,000 at
50 (at 5 a second real time would take 2,000 s); then three processes on one account together. The server has a higher
priority than all of them, or its own stalls would be measured. "Ideal / taken" of a run is the share of the limit that
was used, from the first request that was admitted to the last; goals are upper bounds here as everywhere, so the figure
is its inverse.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figure import Figure
from benchmarks.neighbour import busy
from runner.ratelimit.window import SlidingWindow
from tests.ratelimit.virtual_time import FAST, SLOW, Client, Simulation, violations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench

_ALONE, _TOGETHER = 1 / 0.97, 1 / 0.95
_ROOT = Path(__file__).resolve().parents[1]
#: rate, requests, processes
_REAL = ((50, 2_000, 1), (500, 10_000, 1), (50, 1_500, 3), (500, 9_000, 3))


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure time and violations."""
    for rate in (5, 50, 500):
        yield from _virtual(rate, bench.size(10_000))
    with busy():
        for rate, count, processes in _REAL:
            yield from _real(bench, rate, bench.size(count), processes)


def _virtual(rate: int, count: int) -> Iterator[Figure]:
    used, broken = 1.0, 0
    for back in (FAST, SLOW):
        server = Simulation(back=back, stalls=0.02).run([Client(SlidingWindow(rate), concurrency=max(8, rate))], count)
        used, broken = min(used, server.use(rate)), broken + violations(server.arrivals, rate)
    yield Figure(f"{rate}/s in virtual time: taken / ideal", 1 / used, _ALONE)
    yield Figure(f"{rate}/s in virtual time: violations", broken, 0)


def _real(bench: Bench, rate: int, count: int, processes: int) -> Iterator[Figure]:
    home = bench.directory / f"rate-{rate}-{processes}"
    home.mkdir()
    counts: dict[str, float] = {}
    with _strict_server(rate, counts) as port:
        words = [str(port), str(rate), str(count // processes), str(min(250, rate))]
        command = [
            "nice",
            "-n",
            "5",
            sys.executable,
            "-m",
            "benchmarks.pacer",
            *words,
            *([str(home)] if processes > 1 else []),
        ]
        running = [subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE) for _ in range(processes)]
        cpu = sum(float(process.communicate()[0]) for process in running)
    name = f"{rate}/s" if processes == 1 else f"{processes} processes at {rate}/s"
    ideal = (counts["admitted"] - 1) / rate
    yield Figure(f"{name}: taken / ideal", counts["seconds"] / ideal, _ALONE if processes == 1 else _TOGETHER)
    yield Figure(f"{name}: violations", counts["refused"], 0)
    yield Figure(f"{name}: CPU a request", 1e6 * cpu / count, unit="µs")


@contextmanager
def _strict_server(rate: int, counts: dict[str, float]) -> Iterator[int]:
    """Yield the port of a strict server; `counts` has its counters when the block has ended."""
    command = [sys.executable, "-m", "benchmarks.strict_server", str(rate), "0.01", "0.03"]
    process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield int(process.stdout.readline() if process.stdout else "")
    finally:
        counts.update(json.loads(process.communicate()[0]))
