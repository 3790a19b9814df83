"""`runner plan` of a CSV with 100,000 rows, against Python reading the same file and making one text a row.

The floor is `csv.DictReader` and an f-string (the median of 5): no check, no key, no hash, no search for duplicates.
`plan` reads the file twice and hashes it once: it expands every task to find all errors before it prints anything, and
then again to count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.bench import Bench

_ROWS = 100_000
_FLOOR = """
import csv, sys
with open(sys.argv[1], newline="", encoding="utf-8") as file:
    print(sum(len(f"{row['Prompt']}, {row['mood']}") for row in csv.DictReader(file)))
"""


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure time and memory."""
    rows = _written(bench.directory / "rows.csv")
    manifest = bench.manifest("plan", rows, 20)
    floor = sorted((bench.python("-c", _FLOOR, str(rows)) for _ in range(5)), key=lambda usage: usage.cpu)[2]
    plan = bench.run("plan", str(manifest), "--json")
    yield Figure("seconds for 100,000 rows", plan.seconds, unit="s")
    yield Figure("CPU a row", 1e6 * plan.cpu / _ROWS, 25.0, "µs")
    yield Figure("peak memory", plan.peak, 120.0, "MB")
    yield Figure("CPU / floor", plan.cpu / floor.cpu)
    yield Figure("peak memory / floor", plan.peak / floor.peak)


def _written(path: Path) -> Path:
    with path.open("w", encoding="utf-8") as file:
        file.write("Prompt,mood\n")
        file.writelines(f'"a lighthouse, number {number}, at dusk",calm\n' for number in range(_ROWS))
    return path
