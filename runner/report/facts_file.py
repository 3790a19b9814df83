"""Store `RunInfo` (limits, units, cost cap) in the job's state directory for the live page."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import orjson

from runner.report.progress import Facts
from runner.report.whole_file import whole_file

if TYPE_CHECKING:
    from pathlib import Path

_NAME = "facts.json"


def write(state: Path, info: Facts) -> None:
    """Write a run's information into a job's state directory, readable by its owner only; raises OSError."""
    stored = {"job": info.job, "units": info.units, "max_cost": info.max_cost, "limits": info.limits}
    with whole_file(state / _NAME, 0o600) as file:
        file.write(orjson.dumps(stored))


def read(state: Path) -> Facts:
    """Return the information of the latest run, or an empty RunInfo if there is none or it cannot be read."""
    with suppress(OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        stored = orjson.loads((state / _NAME).read_bytes())
        units = {str(name): str(unit) for name, unit in dict(stored["units"]).items()}
        limits = {str(name): float(limit) for name, limit in dict(stored["limits"]).items()}
        cap = stored["max_cost"]
        return Facts(str(stored["job"]), units, None if cap is None else float(cap), limits)
    return Facts("")
