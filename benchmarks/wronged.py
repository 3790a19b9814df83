"""A manifest that says 50 a second, at an account that allows 10: the runner has to find the real limit.

The whole runner against the sandbox, which answers 40001 to what exceeds 10 in any sliding second, for submits and for
polls. Refused is the share of all submits that were sent. Time is from the first accepted submit to the last, against
one every tenth of a second.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks.bench import SECONDS
from benchmarks.figure import Figure
from benchmarks.provider import sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench

_CONFIGURED, _ALLOWED = 50, 10
_TASKS = 600


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure completeness, refusals and time."""
    tasks = bench.size(_TASKS)
    with sandbox("--qps", str(_ALLOWED), *SECONDS) as provider:
        manifest = bench.manifest("wronged", bench.numbered("wronged", tasks), _CONFIGURED)
        usage = bench.run("run", str(manifest), "--json", provider=provider)
        arrivals, stats = provider.arrivals(), provider.stats()
    done = json.loads(usage.output)["counts"].get("done", 0)
    refused = sum(count for name, count in stats["violations"].items() if name.endswith("/submit"))
    yield Figure("tasks not done, or not paid exactly once", abs(tasks - done) + abs(tasks - len(arrivals)), 0)
    yield Figure("submits refused as too fast", refused / (refused + len(arrivals)), 0.05)
    yield Figure("first to last submit / ideal", (max(arrivals) - min(arrivals)) / ((tasks - 1) / _ALLOWED), 1.25)
