"""What a run knows and its database does not, left beside it for whoever watches: limits, units, the cap on costs."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import orjson

from runner.report.progress import Facts
from runner.report.whole_file import whole_file

if TYPE_CHECKING:
    from pathlib import Path

_NAME = "facts.json"


def write(state: Path, facts: Facts) -> None:
    """Put them into a job's state; raises OSError."""
    told = {"job": facts.job, "units": facts.units, "max_cost": facts.max_cost, "limits": facts.limits}
    with whole_file(state / _NAME, 0o600) as file:
        file.write(orjson.dumps(told))


def read(state: Path) -> Facts:
    """What the latest run left; nothing is known where there was none yet, or where it cannot be read."""
    with suppress(OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        told = orjson.loads((state / _NAME).read_bytes())
        units = {str(name): str(unit) for name, unit in dict(told["units"]).items()}
        limits = {str(name): float(limit) for name, limit in dict(told["limits"]).items()}
        cap = told["max_cost"]
        return Facts(str(told["job"]), units, None if cap is None else float(cap), limits)
    return Facts("")
