"""How long a person waits for `runner --help`, in units of the interpreter's own start.

Wall time, the median of 15, each taking turns with `python -c pass`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench

_ROUNDS = 15


def measure(bench: Bench) -> Iterator[Figure]:
    """Start-up."""
    seconds, ratio = bench.against_nothing("--help", rounds=_ROUNDS)
    yield Figure("`--help` / `python -c pass`", ratio, 6.0)
    yield Figure("`--help`", 1000 * seconds, unit="ms")
