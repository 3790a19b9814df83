"""CPU of one small request through our client, against aiohttp alone: the same server, the same JSON, taking turns.

The client adds a deadline over the whole exchange, a record of what left the machine, size limits, strict JSON and
redacted credentials. Medians of 7 rounds of 2,000 requests. Then 10,000 requests are cancelled, each at another point.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks.figure import Figure
from benchmarks.provider import file_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure CPU, and connections left by cancellations."""
    with file_server(0) as url:
        figures = json.loads(bench.python("-m", "benchmarks.asking", url).output)
    yield Figure("CPU, client / aiohttp, 50 in flight", figures["client 50"] / figures["aiohttp 50"], 2.0)
    yield Figure("CPU, client / aiohttp, 500 in flight", figures["client 500"] / figures["aiohttp 500"], 2.0)
    yield Figure("CPU of the client, 500 / 50 in flight", figures["client 500"] / figures["client 50"], 1.2)
    yield Figure("CPU of the client a request", figures["client 50"], unit="µs")
    yield Figure("connections left by 10,000 cancellations", int(figures["leaked"]), 0)
