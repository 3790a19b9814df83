"""`runner status` of the finished PartiPrompts job.

Wall time, the median of 9, each taking turns with `python -c pass`. The goal is the one of `--help`: status needs no
more than SQLite besides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench

_ROUNDS = 9


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure wall time, by the manifest and by the job directory."""
    manifest = bench.parti.manifest
    _, by_manifest = bench.against_nothing("status", str(manifest), rounds=_ROUNDS)
    _, by_directory = bench.against_nothing("status", str(manifest.with_suffix("")), rounds=_ROUNDS)
    yield Figure("`status MANIFEST` / `python -c pass`", by_manifest)
    yield Figure("`status DIR` / `python -c pass`", by_directory, 6.0)
