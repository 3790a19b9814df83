"""The store alone: durable transitions, each on the disk (database and journal, FULL) before its waiter goes on.

Five hundred waiters share commits; one waiter alone is one commit each. Both do the same on the same disk, in turns;
the fastest of three rounds counts. The ratio depends on how fast the disk syncs as much as on us: where two syncs take
half a millisecond and not one and more, as on the machine that the goal was set on, twenty times is impossible, since
SQLite's update of the row, its indexes and the counters takes 25 to 30 µs of CPU alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench

_ROUNDS = 3
_MANY, _ONE = ("10000", "500"), ("250", "1")


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure the time of a transition; goals are 15,000 a second, and twenty times one commit each."""
    rounds = [(_settled(bench, f"many-{n}", _MANY), _settled(bench, f"one-{n}", _ONE)) for n in range(_ROUNDS)]
    many = max(rate for (rate, _), _ in rounds)
    one = max(rate for _, (rate, _) in rounds)
    cpu = min(cpu for (_, cpu), _ in rounds)
    yield Figure("a durable transition at 500 waiters", 1e6 / many, 1e6 / 15_000, "µs")
    yield Figure("the same / one commit each", one / many, 1 / 20)
    yield Figure("CPU of one at 500 waiters", 1e6 * cpu, unit="µs")


def _settled(bench: Bench, name: str, words: tuple[str, str]) -> tuple[float, float]:
    folder = bench.directory / name
    folder.mkdir()
    rate, cpu = map(float, bench.python("-m", "benchmarks.settling", str(folder), *words).output.split())
    return rate, cpu
