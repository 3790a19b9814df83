"""Facts about a run that its store does not hold (limits, units, the cap on costs), and the run's state in one line.

The facts are left in a file of the job's state directory, for other processes that show the same progress.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from runner.files import atomic_write
from runner.tasks.models import State
from runner.text import format_duration, format_rate, sanitize

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.report.stats import RunStats

#: name of the file in a job's state directory
_RUN_INFO_NAME = "facts.json"
#: seconds of remaining time below which no number is shown
_MIN_ETA = 10.0
_LABELS = (
    (State.QUEUED, "to submit"),
    (State.SUBMITTING, "submitting"),
    (State.RUNNING, "running"),
    (State.READY, "downloading"),
    (State.IN_DOUBT, "in doubt"),
    (State.HELD, "held"),
    (State.FAILED, "failed"),
    (State.STRANDED, "stranded"),
)
_PROBLEM_LABELS = _LABELS[4:]


@dataclass(frozen=True, slots=True)
class RunInfo:
    """Facts about a run. None but `waits` changes while it runs."""

    job: str
    #: unit of costs by provider
    units: Mapping[str, str] = field(default_factory=dict)
    #: cap on the cost of the job, in that unit
    max_cost: float | None = None
    #: submits per second that each provider allows
    limits: Mapping[str, float] = field(default_factory=dict)
    #: why submits waited when this was written, by provider
    waits: Mapping[str, str] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """Return the unit of costs, or an empty string if it is unknown or differs between providers."""
        found = set(self.units.values())
        return found.pop() if len(found) == 1 else ""


def cost_text(info: RunInfo, stats: RunStats) -> str:
    """Return the cost so far, such as `cost 48 of 500 credits`, or an empty string if there is none."""
    if len(set(info.units.values())) > 1:
        parts = (
            f"{provider.cost:g} {info.units.get(name, '')}"
            for name, provider in stats.by_provider.items()
            if provider.cost
        )
        amounts = " + ".join(part.rstrip() for part in parts)
        return f"cost {amounts}" if amounts else ""
    spent = stats.cost_before + stats.cost
    if not spent and info.max_cost is None:
        return ""
    cap = "" if info.max_cost is None else f" of {info.max_cost:g}"
    return f"cost {'at least ' if stats.unpriced else ''}{spent:g}{cap} {info.unit}".rstrip()


def speed_text(stats: RunStats, now: float) -> str:
    """Return rate and remaining time, such as `12/min, eta 3 min`, or an empty string if no task is left."""
    if not stats.open or stats.stopping:
        return ""
    eta = stats.eta(now)
    eta_text = "eta unknown" if eta is None else "eta under 10 s" if eta < _MIN_ETA else f"eta {format_duration(eta)}"
    rate = stats.rate(now)
    return f"{format_rate(rate)}, {eta_text}" if rate and eta is not None else eta_text


def wait_text(waits: Mapping[str, str], states: Mapping[str, int]) -> str:
    """Return why nothing is submitted, such as `submits wait: …`, or an empty string if they do not wait."""
    if not waits or states.get(State.QUEUED, 0) <= 0:
        return ""
    reasons = dict.fromkeys(waits.values())
    named = waits.items() if len(reasons) > 1 else [("", reason) for reason in reasons]
    return sanitize(f"submits wait: {'; '.join(f'{name}: {why}' if name else why for name, why in named)}", 120)


def status_line(info: RunInfo, stats: RunStats, now: float) -> str:
    """Return the state of the run in one line."""
    states = stats.states
    parts = [f"{states[State.DONE]}/{stats.total} done"]
    parts += [f"{states[state]} {word}" for state, word in _LABELS if states[state] > 0]
    parts += [part for part in (speed_text(stats, now), cost_text(info, stats)) if part]
    if wait := wait_text(stats.waits, states):
        parts.append(wait)
    if stats.stopping:
        parts.append("stopping")
    if stats.last_error:
        parts.append(f"last: {sanitize(stats.last_error, 60)}")
    return f"{info.job}: {' · '.join(parts)}"


def short_status_line(info: RunInfo, stats: RunStats, now: float) -> str:
    """Return the state of the run in a short line for a narrow terminal, most important parts first."""
    states = stats.states
    parts = [f"{states[State.DONE]}/{stats.total}", "stopping" if stats.stopping else ""]
    parts += [f"{states[state]} {word}" for state, word in _PROBLEM_LABELS if states[state] > 0]
    parts += [speed_text(stats, now).rpartition(", ")[2], cost_text(info, stats)]
    return f"{info.job} {' · '.join(part for part in parts if part)}"


def write_run_info(state: Path, info: RunInfo) -> None:
    """Write a run's information into a job's state directory, readable by its owner only; raises OSError."""
    stored = {"job": info.job, "units": info.units, "max_cost": info.max_cost, "limits": info.limits}
    stored["waits"] = info.waits
    with atomic_write(state / _RUN_INFO_NAME, 0o600) as file:
        file.write(orjson.dumps(stored))


def read_run_info(state: Path) -> RunInfo:
    """Return the information of the latest run, or an empty RunInfo if there is none or it cannot be read."""
    with suppress(OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        stored = orjson.loads((state / _RUN_INFO_NAME).read_bytes())
        units = {str(name): str(unit) for name, unit in dict(stored["units"]).items()}
        limits = {str(name): float(limit) for name, limit in dict(stored["limits"]).items()}
        cap = stored["max_cost"]
        waits = {str(name): str(why) for name, why in dict(stored.get("waits", {})).items()}
        return RunInfo(str(stored["job"]), units, None if cap is None else float(cap), limits, waits)
    return RunInfo("")
