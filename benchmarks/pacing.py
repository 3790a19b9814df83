"""600 tasks at 20 a second, against a provider that refuses what exceeds 20 in any sliding second.

Pace is the time from the first accepted submit to the last, by the provider's own clock, against 599/20 s. A violation
is a request that the provider answered with 40001. Polls have a limit of their own there, as submits do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.bench import SECONDS
from benchmarks.figure import Figure
from benchmarks.provider import sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench

_COUNT, _QPS = 600, 20


def measure(bench: Bench) -> Iterator[Figure]:
    """Pace and violations."""
    prompts = bench.directory / "pacing.tsv"
    prompts.write_text("".join(["Prompt\n", *(f"a numbered buoy, {n}\n" for n in range(_COUNT))]))
    with sandbox("--qps", str(_QPS), *SECONDS) as provider:
        bench.run("run", str(bench.manifest("pacing", prompts, _QPS)), "--json", provider=provider)
        arrivals, stats = provider.arrivals(), provider.stats()
    yield Figure("tasks not accepted exactly once", abs(len(arrivals) - _COUNT) + stats["duplicates"], 0)
    yield Figure("first to last submit / ideal", (max(arrivals) - min(arrivals)) / ((_COUNT - 1) / _QPS), 1.03)
    yield Figure("requests refused as too fast", sum(stats["violations"].values()), 1)
