"""The end of a run: the promised JSON object, and the same for people."""

from __future__ import annotations

import os
import secrets
import shlex
from typing import TYPE_CHECKING, Any

import orjson

from runner.report.text import duration, harmless, size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from runner.report.tally import Tally

#: exit code to what to do next, as a template over the manifest's shell-quoted path
_NEXT = {
    1: "report the bug, then run the same command again",
    3: "runner retry {manifest} fetches what is stranded, free of charge; with --failed it pays anew for what failed",
    4: "runner resolve {manifest} KEY --adopt ID, --absent or --abandon, with the provider's console beside it",
    5: "runner run {manifest}",
    6: "top up at the provider, then runner run {manifest}",
    7: "correct the configuration, then runner run {manifest}",
    8: "raise limits.max_cost (or the day's limit), then runner run {manifest}",
    12: "correct the credentials, then runner run {manifest}",
    129: "runner run {manifest}",
    130: "runner run {manifest}",
    143: "runner run {manifest}",
}


def summary(
    job: str,
    *,
    exit_code: int,
    reasons: Sequence[str],
    counts: Mapping[str, int],
    tally: Tally,
    in_doubt: Sequence[str],
    seconds: float,
    words: Sequence[str],
) -> dict[str, Any]:
    """The promised object (interface.md): counts, what this run did, all reasons, and what to do next."""
    hint = _NEXT.get(exit_code)
    if exit_code == 3 and not counts.get("failed") and not counts.get("stranded"):  # noqa: PLR2004 - the promised code
        hint = None  # finished with fewer outputs than ordered: nothing can be done about it here
    return {
        "job": job,
        "exit_code": exit_code,
        "reasons": list(reasons),
        "counts": dict(counts),
        "submitted": tally.submitted,
        "adopted": tally.adopted,
        "downloaded": tally.downloaded,
        "bytes": tally.bytes,
        "cost": None if tally.unpriced else tally.cost,
        "in_doubt": list(in_doubt),
        "seconds": round(seconds, 3),
        "next": hint.format(manifest=shlex.join(words)) if hint else None,
    }


def told(summary: Mapping[str, Any], faults: Sequence[Mapping[str, Any]], directory: str) -> str:
    """The same for people: what is here, what is not and why, what to do next."""
    counts = " · ".join(f"{count} {state.replace('_', ' ')}" for state, count in summary["counts"].items())
    lines = [f"{summary['job']}: {counts or 'nothing to do'}"]
    work = f"{summary['submitted']} submitted, {summary['downloaded']} files ({size(summary['bytes'])})"
    adopted = f", {summary['adopted']} found again" if summary["adopted"] else ""
    cost = f", cost {summary['cost']:g}" if summary["cost"] else ""
    lines.append(f"  this run: {work}{adopted}{cost} in {duration(summary['seconds'])}")
    lines.append(f"  files:    {harmless(directory, 500)}")
    for fault in faults:
        message = harmless(fault["message"], 160)
        lines.append(
            f"  {fault['count']} {fault['state']}: {fault['reason'] or 'unknown'}{f' ({message})' if message else ''}"
        )
    lines += [f"  {harmless(reason)}" for reason in summary["reasons"]]
    if summary["next"]:
        lines.append(f"  next:     {summary['next']}")
    return "\n".join(lines)


def write(path: Path, summary: Mapping[str, Any]) -> None:
    """Put the summary into a file, whole or not at all."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(orjson.dumps(summary, option=orjson.OPT_APPEND_NEWLINE))
    fresh.replace(path)
