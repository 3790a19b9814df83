"""The finished PartiPrompts job, run again: the manifest is read and expanded, the store opened, nothing sent.

Wall time, the median of 5, each taking turns with `python -c pass`. Requests are counted by the provider, which is
still there and would take them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench

_ROUNDS = 5


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure time and requests."""
    job = bench.parti
    before = job.provider.requests()
    words = ("run", str(job.manifest), "--json")
    seconds, ratio = bench.against_nothing(*words, provider=job.provider, rounds=_ROUNDS)
    yield Figure("requests sent", job.provider.requests() - before, 0)
    yield Figure("wall time", seconds, unit="s")
    yield Figure("wall time / `python -c pass`", ratio)
