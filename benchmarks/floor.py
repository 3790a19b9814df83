"""The runner's CPU for PartiPrompts against a bare aiohttp loop (`benchmarks/bare.py`) that makes the same calls.

The loop fetches a token, sends 1,632 submits at 200 a second, each over a connection of its own, asks for 50 tasks a
call, downloads eight files at once and writes them. It reads and expands no manifest, keeps no state on disk, syncs,
hashes and checks no file, cannot be resumed, knows no limit (its provider has none), no fault and no retry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.bench import QPS, SECONDS, TASKS
from benchmarks.figure import Figure
from benchmarks.provider import sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure CPU and memory of both."""
    ours = bench.parti
    with sandbox(*SECONDS) as provider:
        files = bench.directory / "bare"
        files.mkdir()
        bare = bench.python("-m", "benchmarks.bare", provider.url, str(bench.prompts), str(files), str(QPS))
        requests = provider.requests()
    yield Figure("files the loop did not bring", TASKS - len(list(files.iterdir())), 0)
    yield Figure("requests, runner / loop", ours.provider.requests() / requests)
    yield Figure("CPU, runner / loop", ours.usage.cpu / bare.cpu)
    yield Figure("CPU of the loop a task", 1000 * bare.cpu / TASKS, unit="ms")
    yield Figure("peak memory, runner / loop", ours.usage.peak / bare.peak)
