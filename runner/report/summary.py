"""Summarize a run: the documented JSON object, and a text for the terminal.

Tasks that failed or need a decision are grouped by reason, each group with its next step, which is a command to copy
where there is one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Any

import orjson

from runner.files import atomic_write
from runner.report.guarantee_text import safety_lines
from runner.report.results import iso_timestamp
from runner.tasks.models import State
from runner.tasks.remote_ids import named_id, says_accepted, show_remote_id
from runner.text import format_duration, format_size, pluralize, sanitize, shell_join

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from runner.report.stats import RunStats


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
#: exit codes of a run whose address or credentials are wrong
_REFUSED_CODES = frozenset({7, 12})
#: directories of linked tasks that are listed
_MAX_LINKED_FROM = 3
#: held tasks that are listed with their commands
_MAX_HELD = 3
#: characters of what is on record of a held task, which may be an id that cannot be stored
_MAX_EVIDENCE = 500
#: codes of refusals that are named
_MAX_CODES = 5
_STATE_ORDER = (State.HELD, State.FAILED, State.STRANDED, State.DONE)
#: reasons that only a change of the manifest can remove
_MANIFEST_REASONS = frozenset({"moderation", "invalid"})
#: next step by state and reason; an empty reason stands for all others
_HINTS: Mapping[tuple[str, str], str] = {
    ("failed", "moderation"): "the provider's content check refused what is asked for: change it, then {run}",
    ("failed", "invalid"): "the provider does not take these parameters: correct them, then {run}",
    ("failed", "image"): "the picture is not what was planned: put it back, then {retry} --failed --reason image; or "
    "leave it so, and {run} plans it anew",
    ("failed", "provider"): "the provider could not make it; to pay anew: {retry} --failed --reason provider",
    ("failed", "abandoned"): "given up by a person; to buy it after all: {retry} --failed --reason abandoned",
    ("failed", ""): "the provider did not take it, however often it was asked; later: {retry} --failed",
    ("stranded", "stuck"): "paid for, and still not finished there; to look again, free of charge: {retry}",
    ("stranded", "no_output"): "paid for, and the provider shows no file; to look again, free of charge: {retry}; or "
    "ask its support, with the remote_id in results.jsonl",
    ("stranded", "gone"): "another job has paid for it, its files are gone, and the provider has them no more; to pay "
    "anew: {run} --buy-again",
    ("stranded", "withdrawn"): "paid for, and the provider has it no more; to look again, free of charge: {retry}",
    ("stranded", ""): "paid for, and the files could not be fetched; to try again, free of charge: {retry}",
    ("done", ""): "the provider made fewer files than were ordered; those that it made are here",
}


@dataclass(frozen=True, slots=True)
class JobIssues:
    """Tasks of a job that failed, are incomplete, or need a decision by the user."""

    #: groups from the store, each with state, reason, message, count, cost and example tasks
    groups: Sequence[Mapping[str, Any]] = ()
    #: all held tasks from the store
    held: Sequence[Mapping[str, Any]] = ()
    #: number of tasks that the next run reconciles, suspects included
    in_doubt: int = 0
    #: of those, the tasks that were refused and are not known to have cost nothing: their number by code
    suspects: Mapping[str, int] = field(default_factory=dict)
    #: of the held tasks, those that were refused: their number by code
    held_suspects: Mapping[str, int] = field(default_factory=dict)
    #: number of submitted tasks that are no longer in the manifest
    removed: int = 0
    #: number of those that had failed
    removed_failed: int = 0
    #: exit code and reason of everything that ended the run
    endings: Sequence[tuple[int, str]] = ()
    #: unit of all costs
    unit: str = ""
    #: arguments that name the job on a command line
    arguments: Sequence[str] = field(default_factory=list)

    @property
    def needs_manifest_change(self) -> bool:
        """Return whether every failure needs a change of the manifest, so that a retry alone cannot help."""
        lost = [group for group in self.groups if group["state"] in {"failed", "stranded"}]
        return all(group["state"] == "failed" and group["reason"] in _MANIFEST_REASONS for group in lost)

    def command(self, verb: str, *more: str) -> str:
        """Return a command line for this job, quoted for a shell."""
        return shell_join("runner", verb, *self.arguments, *more)

    def resolve_command(self, task: Mapping[str, Any]) -> str:
        """Return the command with which the user decides about a held task, with the id that its answer named."""
        manifest, *options = self.arguments or [""]
        command = shell_join("runner", "resolve", manifest, task["key"][:8], *options)
        named = named_id(task["evidence"] or "")
        return f"{command} --adopt {'ID' if named is None else shell_join(show_remote_id(named))}"


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
    guarantees: Sequence[Mapping[str, Any]] = (),
    results_as_of: float | None = None,
) -> dict[str, Any]:
    """Return the documented summary object: counts, work of this run, reasons of the exit code, and the next step.

    `seconds` is the duration of the run. Costs are in the provider's unit, None if a price is unknown. `guarantees` say
    what happens to a lost answer, as `guarantee_dict` makes them. `results_as_of` is the time that results.jsonl shows,
    in seconds since the epoch, or None if it was not written.
    """
    return {
        "job": job,
        "exit_code": exit_code,
        "reasons": list(reasons),
        "counts": dict(counts),
        "submitted": stats.submitted,
        "adopted": stats.adopted,
        "bonus": stats.late_results,
        "linked": stats.linked.total(),
        "linked_from": dict(stats.linked),
        "downloaded": stats.downloaded,
        "bytes": stats.bytes,
        "cost": None if stats.unpriced else stats.cost,
        "in_doubt": list(in_doubt),
        "suspects": dict(issues.suspects),
        "seconds": round(seconds, 3),
        "next": _next_step(exit_code, counts, issues),
        "guarantees": list(guarantees),
        "results_as_of": None if results_as_of is None else iso_timestamp(results_as_of),
    }


def _next_step(exit_code: int, counts: Mapping[str, int], issues: JobIssues) -> str | None:
    """Return the next step for the user in one line, or None if there is nothing to do."""
    match exit_code:
        case 4 if issues.held:
            command = issues.resolve_command(issues.held[0])
            return f"{command} (or --absent, or --abandon), with the provider's console beside it"
        case 4:
            return f"{issues.command('audit')} lists what was paid for beside ours"
        case 13:
            return f"{issues.command('adopt-state')} shows what differs, and lets it go on"
        case 5 if issues.suspects:
            return f"{issues.command('run')} first looks up what was refused, and buys it if nothing was made"
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
    for linked_from, count in islice(summary["linked_from"].items(), _MAX_LINKED_FROM):
        lines.append(f"  linked    {count} bought before in {sanitize(linked_from, 500)}: nothing to pay")
    # where nothing could be sent, what becomes of a lost answer is not the question
    is_refused = summary["exit_code"] in _REFUSED_CODES and not summary["submitted"]
    safety = () if is_refused else safety_lines(summary.get("guarantees", ()))
    for label, line in zip_longest(["safety"], safety, fillvalue=""):
        lines += [f"  {label:<8}  {line}"] if line else []
    lines += [f"  {line}" for line in issue_lines(issues)]
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
    if summary["linked"]:
        parts.append(f"{summary['linked']} linked")
    if summary["bonus"]:
        parts.append(f"{summary['bonus']} made after all")
    if summary["cost"]:
        parts.append(f"cost {summary['cost']:g} {unit}".rstrip())
    return ", ".join(parts)


def write(path: Path, summary: Mapping[str, Any]) -> None:
    """Write the summary object to a file as one line of JSON, atomically; raises OSError."""
    with atomic_write(path) as file:
        file.write(orjson.dumps(summary, option=orjson.OPT_APPEND_NEWLINE))


def issue_lines(issues: JobIssues) -> Iterator[str]:
    """Yield a line for each group, followed by indented lines with the next step."""
    for group in sorted(issues.groups, key=lambda group: _STATE_ORDER.index(group["state"])):
        yield from _group_lines(issues, group)
    then = "looked up before anything is sent again; `runner resolve` decides it now"
    if suspects := sum(issues.suspects.values()):
        yield f"{suspects} refused ({codes_text(issues.suspects)}): perhaps paid for all the same; {then}"
        yield f"    {issues.command('run')}"
    if issues.in_doubt > suspects:
        yield f"{issues.in_doubt - suspects} in doubt: perhaps paid for; {then}"
        yield f"    {issues.command('run')}"
    if issues.removed > issues.removed_failed:
        yield f"{issues.removed - issues.removed_failed} of them left the manifest: what was bought is kept"
    if issues.removed_failed:
        yield f"{issues.removed_failed} that failed left the manifest: nothing is to be done about them"


def _group_lines(issues: JobIssues, group: Mapping[str, Any]) -> Iterator[str]:
    message = sanitize(group["message"] or "", 160)
    what = "incomplete" if group["state"] == "done" else group["state"]
    title = f"{group['count']} {what}: {group['reason'] or 'unknown'}{f' ({message})' if message else ''}"
    yield "; ".join(part for part in (title, _payment_note(issues, group)) if part)
    if group["state"] == "held":
        yield from _held_lines(issues)
        return
    hint = _HINTS.get((group["state"], group["reason"]), _HINTS[group["state"], ""])
    yield f"    {hint.format(run=issues.command('run'), retry=issues.command('retry'))}"
    names = [sanitize(name, 60) for name in group["tasks"]]
    more = group["count"] - len(names)
    if names:
        yield f"      {', '.join(names)}{f' and {more} more' if more > 0 else ''}"


def codes_text(codes: Mapping[str, int]) -> str:
    """Return the codes of refusals with their numbers, such as `1302 ×2, 1303`."""
    named = [f"{sanitize(code, 40)}{f' ×{count}' if count > 1 else ''}" for code, count in codes.items()]
    more = f" and {len(named) - _MAX_CODES} more" if len(named) > _MAX_CODES else ""
    return f"{', '.join(named[:_MAX_CODES])}{more}"


def _held_lines(issues: JobIssues) -> Iterator[str]:
    if issues.held_suspects:
        number, codes = sum(issues.held_suspects.values()), codes_text(issues.held_suspects)
        were = "1 was" if number == 1 else f"{number} were"
        yield f"    {were} refused ({codes}), and the list cannot tell whether that cost something all the same"
    yield "    perhaps paid for: look at the provider's console, then say what is true. Instead of --adopt ID:"
    yield "    --absent, if it was never accepted (the next run buys it), or --abandon, to give it up"
    for task in issues.held[:_MAX_HELD]:
        yield f"      {sanitize(task['name'], 60)}: {sanitize(task['evidence'], _MAX_EVIDENCE)}"
        yield f"        {issues.resolve_command(task)}"
    if len(issues.held) > _MAX_HELD:
        yield f"      and {len(issues.held) - _MAX_HELD} more: {issues.command('status')}"
    unclear = sum(not says_accepted(task["evidence"] or "") for task in issues.held)
    if unclear > 1:
        which = (
            "all of them"
            if unclear == len(issues.held)
            else f"the {unclear} of which no answer says that they were made,"
        )
        yield f"    {which} at once: {issues.command('resolve', '--all', '--absent')}"


def _payment_note(issues: JobIssues, group: Mapping[str, Any]) -> str:
    amount = f"{group['cost']:g} {issues.unit}".rstrip()
    match group["state"]:
        case "held":
            return f"{amount} at stake" if group["paid"] else ""
        case _ if group["paid"]:
            return f"{amount} paid"
        case _ if group["unpriced"]:
            return "paid for, if the provider bills failures" if group["state"] == "failed" else ""
        case "failed":
            return "not paid for"
        case _:
            return ""
