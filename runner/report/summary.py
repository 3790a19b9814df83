"""Summarize a run: the documented JSON object, and a text for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from runner.report import advice
from runner.report.advice import resolve
from runner.report.text import duration, harmless, many, size
from runner.report.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from runner.report.advice import Findings
    from runner.report.tally import Tally

#: next step by exit code; a template that takes the command line of the job
_NEXT = {
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
_GROUPED = frozenset({3, 4})


def summary(
    job: str,
    *,
    exit_code: int,
    reasons: Sequence[str],
    counts: Mapping[str, int],
    tally: Tally,
    in_doubt: Sequence[str],
    seconds: float,
    findings: Findings,
) -> dict[str, Any]:
    """Return the documented summary object: counts, work of this run, reasons of the exit code, and the next step.

    `seconds` is the duration of the run. Costs are in the provider's unit, None if a price is unknown.
    """
    return {
        "job": job,
        "exit_code": exit_code,
        "reasons": list(reasons),
        "counts": dict(counts),
        "submitted": tally.submitted,
        "adopted": tally.adopted,
        "bonus": tally.bonus,
        "downloaded": tally.downloaded,
        "bytes": tally.bytes,
        "cost": None if tally.unpriced else tally.cost,
        "in_doubt": list(in_doubt),
        "seconds": round(seconds, 3),
        "next": _next(exit_code, counts, findings),
    }


def _next(exit_code: int, counts: Mapping[str, int], issues: Findings) -> str | None:
    """Return the next step for the user in one line, or None if there is nothing to do."""
    match exit_code:
        case 4 if issues.held:
            command = resolve(issues, issues.held[0]["key"])
            return f"{command} (or --absent, or --abandon), with the provider's console beside it"
        case 3 if counts.get("stranded"):
            return f"{issues.command('retry')} fetches what is stranded, free of charge"
        case 3 if counts.get("failed") and issues.only_by_hand:
            return f"change what was refused, then {issues.command('run')}"
        case 3 if counts.get("failed"):
            return f"{issues.command('retry', '--failed')} pays anew for what failed"
        case _:
            hint = _NEXT.get(exit_code)
            return hint.format(run=issues.command("run")) if hint else None


def told(summary: Mapping[str, Any], issues: Findings, directory: str) -> str:
    """Return the summary as text: counts, work of this run, issues by reason, and the next step."""
    counts = " · ".join(f"{count} {state.replace('_', ' ')}" for state, count in summary["counts"].items())
    lines = [
        f"{summary['job']}: {counts or 'nothing to do'}",
        f"  this run  {_work(summary, issues.unit)} in {duration(summary['seconds'])}",
        f"  files     {harmless(directory, 500)}",
    ]
    lines += [f"  {line}" for line in advice.lines(issues)]
    for code, why in issues.endings:
        if code not in _GROUPED:
            lines.append(f"  {harmless(why)}")
    if summary["next"]:
        lines.append(f"  next      {summary['next']}")
    return "\n".join(lines)


def _work(summary: Mapping[str, Any], unit: str) -> str:
    """Return what this run did: submits, files, late results and cost."""
    weight = f" ({size(summary['bytes'])})" if summary["bytes"] else ""
    parts = [f"{summary['submitted']} submitted", f"{many(summary['downloaded'], 'file')}{weight}"]
    if summary["adopted"]:
        parts.append(f"{summary['adopted']} found again")
    if summary["bonus"]:
        parts.append(f"{summary['bonus']} made after all")
    if summary["cost"]:
        parts.append(f"cost {summary['cost']:g} {unit}".rstrip())
    return ", ".join(parts)


def write(path: Path, summary: Mapping[str, Any]) -> None:
    """Write the summary object to a file as one line of JSON, atomically; raises OSError."""
    with whole_file(path) as file:
        file.write(orjson.dumps(summary, option=orjson.OPT_APPEND_NEWLINE))
