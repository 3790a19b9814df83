"""List what went wrong in a job, grouped by reason, with the next step and a command to copy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner.lifecycle.task import State
from runner.report.text import harmless, shell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: held tasks that are listed with their commands
_SHOWN = 3
_ORDER = (State.HELD, State.FAILED, State.STRANDED, State.DONE)
#: reasons that only a change of the manifest can remove
BY_HAND = frozenset({"moderation", "invalid"})
#: next step by state and reason; an empty reason stands for all others
_CURES: Mapping[tuple[str, str], str] = {
    ("failed", "moderation"): "the provider's content check refused what is asked for: change it, then {run}",
    ("failed", "invalid"): "the provider does not take these parameters: correct them, then {run}",
    ("failed", "image"): "the picture is not what was planned: put it back, then {retry} --failed --reason image; or "
    "leave it so, and {run} plans it anew",
    ("failed", "provider"): "the provider could not make it; to pay anew: {retry} --failed --reason provider",
    ("failed", "abandoned"): "given up by a person; to buy it after all: {retry} --failed --reason abandoned",
    ("failed", ""): "the provider did not take it, however often it was asked; later: {retry} --failed",
    ("stranded", "stuck"): "paid for, and still not finished there; to look again, free of charge: {retry}",
    (
        "stranded",
        "no_output",
    ): "paid for, and the provider shows no file; to look again, free of charge: {retry}; or ask "
    "its support, with the remote_id in results.jsonl",
    ("stranded", "withdrawn"): "paid for, and the provider has it no more; to look again, free of charge: {retry}",
    ("stranded", ""): "paid for, and the files could not be fetched; to try again, free of charge: {retry}",
    ("done", ""): "the provider made fewer files than were ordered; those that it made are here",
}


@dataclass(frozen=True, slots=True)
class Findings:
    """Tasks of a job that failed, are incomplete, or need a decision by the user."""

    #: groups from the store, each with state, reason, message, count, cost and example tasks
    faults: Sequence[Mapping[str, Any]] = ()
    #: all held tasks from the store
    held: Sequence[Mapping[str, Any]] = ()
    #: number of tasks that the next run reconciles
    in_doubt: int = 0
    #: number of submitted tasks that are no longer in the manifest
    left: int = 0
    #: number of those that had failed
    given_up: int = 0
    #: exit code and reason of everything that ended the run
    endings: Sequence[tuple[int, str]] = ()
    #: unit of all costs
    unit: str = ""
    #: arguments that name the job on a command line
    words: Sequence[str] = field(default_factory=list)

    @property
    def only_by_hand(self) -> bool:
        """Return whether every failure needs a change of the manifest, so that a retry alone cannot help."""
        lost = [group for group in self.faults if group["state"] in {"failed", "stranded"}]
        return all(group["state"] == "failed" and group["reason"] in BY_HAND for group in lost)

    def command(self, verb: str, *more: str) -> str:
        """Return a command line for this job, quoted for a shell."""
        return shell("runner", verb, *self.words, *more)


def lines(issues: Findings) -> Iterator[str]:
    """Yield a line for each group, followed by indented lines with the next step."""
    for group in sorted(issues.faults, key=lambda group: _ORDER.index(group["state"])):
        yield from _group(issues, group)
    if issues.in_doubt:
        yield f"{issues.in_doubt} in doubt: perhaps paid for; looked up before anything is sent again"
        yield f"    {issues.command('run')}"
    if issues.left > issues.given_up:
        yield f"{issues.left - issues.given_up} of them left the manifest: what was bought is kept"
    if issues.given_up:
        yield f"{issues.given_up} that failed left the manifest: nothing is to be done about them"


def _group(issues: Findings, group: Mapping[str, Any]) -> Iterator[str]:
    message = harmless(group["message"] or "", 160)
    what = "incomplete" if group["state"] == "done" else group["state"]
    title = f"{group['count']} {what}: {group['reason'] or 'unknown'}{f' ({message})' if message else ''}"
    yield "; ".join(part for part in (title, _money(issues, group)) if part)
    if group["state"] == "held":
        yield from _held(issues)
        return
    hint = _CURES.get((group["state"], group["reason"]), _CURES[group["state"], ""])
    yield f"    {hint.format(run=issues.command('run'), retry=issues.command('retry'))}"
    names = [harmless(name, 60) for name in group["tasks"]]
    more = group["count"] - len(names)
    if names:
        yield f"      {', '.join(names)}{f' and {more} more' if more > 0 else ''}"


def _held(issues: Findings) -> Iterator[str]:
    yield "    perhaps paid for: look at the provider's console, then say what is true. Instead of --adopt ID:"
    yield "    --absent, if it was never accepted (the next run buys it), or --abandon, to give it up"
    for task in issues.held[:_SHOWN]:
        yield f"      {harmless(task['name'], 60)}: {harmless(task['evidence'], 100)}"
        yield f"        {resolve(issues, task['key'])}"
    if len(issues.held) > _SHOWN:
        yield f"      and {len(issues.held) - _SHOWN} more: {issues.command('status')}"


def resolve(issues: Findings, key: str) -> str:
    """Return the command with which the user decides about a held task; `key` is the full task key."""
    manifest, *options = issues.words or [""]
    return f"{shell('runner', 'resolve', manifest, key[:8], *options)} --adopt ID"


def _money(issues: Findings, group: Mapping[str, Any]) -> str:
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
