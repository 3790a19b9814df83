"""How long a user waits: for `runner --help`, in units of the interpreter's own start, and for a run's first submit.

Wall time, the median of 15, each taking turns with `python -c pass`; and of 7 runs of three tasks, from the start of
the process to the sandbox's acceptance of the first, a token fetched and everything written before it.
"""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.bench import SECONDS
from benchmarks.figure import Figure
from benchmarks.provider import sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench

_ROUNDS, _RUNS = 15, 7


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure start-up."""
    seconds, ratio = bench.against_nothing("--help", rounds=_ROUNDS)
    yield Figure("`--help` / `python -c pass`", ratio, 6.0)
    yield Figure("`--help`", 1000 * seconds, 150.0, "ms")
    yield Figure("`run`: to its first submit", median(_first(bench, number) for number in range(_RUNS)), 0.9, "s")


def _first(bench: Bench, number: int) -> float:
    """Return seconds from the start of the process to its first submit; both clocks are this machine's."""
    manifest = bench.manifest(f"first-{number}", bench.numbered("first", 3), 20)
    with sandbox(*SECONDS) as provider:
        began = time.time()
        bench.run("run", str(manifest), "--json", provider=provider)
        return min(provider.arrivals()) - began
