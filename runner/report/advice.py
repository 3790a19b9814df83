"""What went wrong, grouped by reason, each with what to do next: a command that can be copied where there is one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner.lifecycle.task import State
from runner.report.text import harmless, shell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: held tasks whose commands are written out
_SHOWN = 3
_ORDER = (State.HELD, State.FAILED, State.STRANDED, State.DONE)
#: reasons that only another manifest can cure
BY_HAND = frozenset({"moderation", "invalid"})
#: state and reason to what to do; without a reason, for all others
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
    """What a job has that is not as it should be."""

    #: of the store: state, reason, message, count and money of each group
    faults: Sequence[Mapping[str, Any]] = ()
    #: of the store: every held task
    held: Sequence[Mapping[str, Any]] = ()
    #: how many tasks the next run looks up
    in_doubt: int = 0
    #: how many of the tasks that were sent are no longer in the manifest
    left: int = 0
    #: how many of those had failed
    given_up: int = 0
    #: what else ended the run, and its exit code
    endings: Sequence[tuple[int, str]] = ()
    #: what costs are counted in
    unit: str = ""
    #: how the job is named on a command line
    words: Sequence[str] = field(default_factory=list)

    @property
    def only_by_hand(self) -> bool:
        """Whether nothing failed that could be better another time."""
        lost = [fault for fault in self.faults if fault["state"] in {"failed", "stranded"}]
        return all(fault["state"] == "failed" and fault["reason"] in BY_HAND for fault in lost)

    def command(self, verb: str, *more: str) -> str:
        """A command on this job, as a shell takes it (X35)."""
        return shell("runner", verb, *self.words, *more)


def lines(found: Findings) -> Iterator[str]:
    """A line for each group, and beneath it what to do."""
    for fault in sorted(found.faults, key=lambda fault: _ORDER.index(fault["state"])):
        yield from _group(found, fault)
    if found.in_doubt:
        yield f"{found.in_doubt} in doubt: perhaps paid for; looked up before anything is sent again"
        yield f"    {found.command('run')}"
    if found.left > found.given_up:
        yield f"{found.left - found.given_up} of them left the manifest: what was bought is kept"
    if found.given_up:
        yield f"{found.given_up} that failed left the manifest: nothing is to be done about them"


def _group(found: Findings, fault: Mapping[str, Any]) -> Iterator[str]:
    message = harmless(fault["message"] or "", 160)
    what = "incomplete" if fault["state"] == "done" else fault["state"]
    said = f"{fault['count']} {what}: {fault['reason'] or 'unknown'}{f' ({message})' if message else ''}"
    yield "; ".join(part for part in (said, _money(found, fault)) if part)
    if fault["state"] == "held":
        yield from _held(found)
        return
    cure = _CURES.get((fault["state"], fault["reason"]), _CURES[fault["state"], ""])
    yield f"    {cure.format(run=found.command('run'), retry=found.command('retry'))}"
    yield from _examples(fault)


def _examples(fault: Mapping[str, Any]) -> Iterator[str]:
    names = [harmless(name, 60) for name in fault["tasks"]]
    more = fault["count"] - len(names)
    if names:
        yield f"      {', '.join(names)}{f' and {more} more' if more > 0 else ''}"


def _held(found: Findings) -> Iterator[str]:
    yield "    perhaps paid for: look at the provider's console, then say what is true. Instead of --adopt ID:"
    yield "    --absent, if it was never accepted (the next run buys it), or --abandon, to give it up"
    for task in found.held[:_SHOWN]:
        yield f"      {harmless(task['name'], 60)}: {harmless(task['evidence'], 100)}"
        yield f"        {resolve(found, task['key'])}"
    if len(found.held) > _SHOWN:
        yield f"      and {len(found.held) - _SHOWN} more: {found.command('status')}"


def resolve(found: Findings, key: str) -> str:
    """The command with which a person decides about a held task."""
    manifest, *options = found.words or [""]
    return f"{shell('runner', 'resolve', manifest, key[:8], *options)} --adopt ID"


def _money(found: Findings, fault: Mapping[str, Any]) -> str:
    amount = f"{fault['cost']:g} {found.unit}".rstrip()
    match fault["state"]:
        case "held":
            return f"{amount} at stake" if fault["paid"] else ""
        case _ if fault["paid"]:
            return f"{amount} paid"
        case _ if fault["unpriced"]:
            return "paid for, if the provider bills failures" if fault["state"] == "failed" else ""
        case "failed":
            return "not paid for"
        case _:
            return ""
