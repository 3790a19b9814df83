"""Summarize a run: the documented JSON object, and a text for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from runner.report import advice
from runner.report.advice import resolve_command
from runner.report.text import format_duration, format_size, pluralize, sanitize
from runner.report.whole_file import atomic_write

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from runner.report.advice import JobIssues
    from runner.report.tally import RunStats

#: next step by exit code; a template that takes the command line of the job
_NEXT_STEPS = {
    1: "report the bug, then {run}",
    5: "{run}",
    6: "top up at the provider, then {run}",
    7: "correct the configuration, then {run}",
    8: "raise limits.max_cost (or --max-cost, or the day's limit), then {run}",
    12: "correct the credentials, then {run}",
    129: "{run}",
    130: "{run}",
    143: "{run}",
}
#: exit codes whose reasons the groups of tasks already show
_GROUPED_CODES = frozenset({3, 4})


def summary(
    job: str,
    *,
    exit_code: int,
    reasons: Sequence[str],
    counts: Mapping[str, int],
    stats: RunStats,
    in_doubt: Sequence[str],
    seconds: float,
    issues: JobIssues,
) -> dict[str, Any]:
    """Return the documented summary object: counts, work of this run, reasons of the exit code, and the next step.

    `seconds` is the duration of the run. Costs are in the provider's unit, None if a price is unknown.
    """
    return {
        "job": job,
        "exit_code": exit_code,
        "reasons": list(reasons),
        "counts": dict(counts),
        "submitted": stats.submitted,
        "adopted": stats.adopted,
        "bonus": stats.late_results,
        "downloaded": stats.downloaded,
        "bytes": stats.bytes,
        "cost": None if stats.unpriced else stats.cost,
        "in_doubt": list(in_doubt),
        "seconds": round(seconds, 3),
        "next": _next_step(exit_code, counts, issues),
    }


def _next_step(exit_code: int, counts: Mapping[str, int], issues: JobIssues) -> str | None:
    """Return the next step for the user in one line, or None if there is nothing to do."""
    match exit_code:
        case 4 if issues.held:
            command = resolve_command(issues, issues.held[0]["key"])
            return f"{command} (or --absent, or --abandon), with the provider's console beside it"
        case 3 if counts.get("stranded"):
            return f"{issues.command('retry')} fetches what is stranded, free of charge"
        case 3 if counts.get("failed") and issues.needs_manifest_change:
            return f"change what was refused, then {issues.command('run')}"
        case 3 if counts.get("failed"):
            return f"{issues.command('retry', '--failed')} pays anew for what failed"
        case _:
            hint = _NEXT_STEPS.get(exit_code)
            return hint.format(run=issues.command("run")) if hint else None


def render(summary: Mapping[str, Any], issues: JobIssues, directory: str) -> str:
    """Return the summary as text: counts, work of this run, issues by reason, and the next step."""
    counts = " · ".join(f"{count} {state.replace('_', ' ')}" for state, count in summary["counts"].items())
    lines = [
        f"{summary['job']}: {counts or 'nothing to do'}",
        f"  this run  {_work_done(summary, issues.unit)} in {format_duration(summary['seconds'])}",
        f"  files     {sanitize(directory, 500)}",
    ]
    lines += [f"  {line}" for line in advice.issue_lines(issues)]
    for code, why in issues.endings:
        if code not in _GROUPED_CODES:
            lines.append(f"  {sanitize(why)}")
    if summary["next"]:
        lines.append(f"  next      {summary['next']}")
    return "\n".join(lines)


def _work_done(summary: Mapping[str, Any], unit: str) -> str:
    """Return what this run did: submits, files, late results and cost."""
    weight = f" ({format_size(summary['bytes'])})" if summary["bytes"] else ""
    parts = [f"{summary['submitted']} submitted", f"{pluralize(summary['downloaded'], 'file')}{weight}"]
    if summary["adopted"]:
        parts.append(f"{summary['adopted']} found again")
    if summary["bonus"]:
        parts.append(f"{summary['bonus']} made after all")
    if summary["cost"]:
        parts.append(f"cost {summary['cost']:g} {unit}".rstrip())
    return ", ".join(parts)


def write(path: Path, summary: Mapping[str, Any]) -> None:
    """Write the summary object to a file as one line of JSON, atomically; raises OSError."""
    with atomic_write(path) as file:
        file.write(orjson.dumps(summary, option=orjson.OPT_APPEND_NEWLINE))
