"""Submits at 50 a second while an answer takes 0.1, 1 or 2 s, at providers of each kind.

The rate is that between accepted submits: of all of them, and of the later half. The first two of an account go one by
one, and then one more goes out at once for each answer, so that the earlier half has the way up in it. A submit that is
refused as too fast counts against the runner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.figure import Figure
from benchmarks.provider import sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
        arrivals.sort()
        yield Figure(
            f"answers after {wait} s: time a submit, later half / limit", _spacing(arrivals[tasks // 2 :]), 1.11
        )
        yield Figure(f"answers after {wait} s: time a submit / limit", _spacing(arrivals))
        yield Figure(f"answers after {wait} s: refused as too fast", sum(stats["violations"].values()), 0)
        yield Figure(f"answers after {wait} s: not paid exactly once", abs(tasks - stats["accepted"]), 0)


def _spacing(arrivals: Sequence[float]) -> float:
    """Return the mean time between two submits, as a multiple of what the limit asks for."""
    return _RATE * (arrivals[-1] - arrivals[0]) / max(1, len(arrivals) - 1)
