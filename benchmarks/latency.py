"""Submits at 50 a second while an answer takes 0.1, 1 or 2 s, at providers of each kind.

What is compared with the limit is the rate between the first and the last accepted submit. The first submits of a run
go one by one, which is a part of it. A submit that is refused as too fast counts against the runner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.figure import Figure
from benchmarks.provider import sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench

_RATE, _TASKS = 50, 500
_WAITS = (0.1, 1.0, 2.0)


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure the time a submit takes of the ideal, and refusals."""
    tasks = bench.size(_TASKS)
    rows = bench.numbered("latency", tasks)
    for wait in _WAITS:
        manifest = bench.manifest(f"latency-{wait}", rows, _RATE)
        options = ("--qps", str(_RATE), "--accept-delay-s", str(wait), "--seconds", "0.2,0.5")
        with sandbox(*options) as provider:
            bench.run("run", str(manifest), "--json", provider=provider)
            stats, arrivals = provider.stats(), provider.arrivals()
        span = (max(arrivals) - min(arrivals)) / max(1, len(arrivals) - 1)
        yield Figure(f"answers after {wait} s: time of a submit / limit", span * _RATE, 1 / 0.9)
        yield Figure(f"answers after {wait} s: refused as too fast", sum(stats["violations"].values()), 0)
        yield Figure(f"answers after {wait} s: not paid exactly once", abs(tasks - stats["accepted"]), 0)
