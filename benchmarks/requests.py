"""CPU of one small request through the gateway, against aiohttp alone: the same server, the same JSON, taking turns.

What the gateway adds is a deadline over everything, evidence of what left the machine, bounds, strict JSON, and
credentials that stand in no answer. Medians of 7 rounds of 2,000 requests. Then 10,000 requests are cancelled, each at
another point.
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
    """Ratios, and what is left behind."""
    with file_server(0) as url:
        told = json.loads(bench.python("-m", "benchmarks.asking", url).output)
    yield Figure("CPU, gateway / aiohttp, 50 in flight", told["gateway 50"] / told["aiohttp 50"], 2.0)
    yield Figure("CPU, gateway / aiohttp, 500 in flight", told["gateway 500"] / told["aiohttp 500"], 2.0)
    yield Figure("CPU of the gateway, 500 / 50 in flight", told["gateway 500"] / told["gateway 50"], 1.2)
    yield Figure("CPU of the gateway a request", told["gateway 50"], unit="µs")
    yield Figure("connections left by 10,000 cancellations", int(told["leaked"]), 0)
