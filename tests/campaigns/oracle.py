"""Check of a finished job from outside: the provider's ledger against database, journal and files.

Nothing here relies on the runner's own reports. The ledger shows what was paid. Each accepted task must belong to
exactly one row with the same prompt or, if the provider cannot be queried, be covered by a held row.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from runner.sandbox.list_view import OTHER_ID

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    Findings = Iterator[tuple[str, str]]

PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
DONE, HELD = "done", "held"
#: exit codes of a run that can do nothing more: everything is done, or a user must decide
COMPLETE = {0, 4}
#: that of a run in which something waits for a later one
WAITING = 5
#: states of tasks that may be paid for; with them duplicates that wait for them
OPEN = {HELD, "in_doubt"}
UNFINISHED = {*OPEN, "queued"}


@dataclass(frozen=True, slots=True)
class Violation:
    """A violated guarantee: `double`, `orphan`, `lost`, `phantom`, `swapped`, `file`, `journal`, `exit` or `idle`."""

    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


@dataclass(frozen=True)
class Case:
    """The data of a job after its last run."""

    #: a task in doubt can be reconciled, so no paid task may be held
    can_reconcile: bool
    #: the ledger's `external_id` is our reference
    by_reference: bool
    #: as `ReadOnlyQueries.results` returns them
    rows: Sequence[Mapping[str, Any]]
    #: in file order
    journal: Sequence[Mapping[str, Any]]
    #: in order of acceptance
    ledger: Sequence[Mapping[str, Any]]
    directory: Path
    #: summaries of the last run that worked, and of the one after it
    last: Mapping[str, Any]
    idle: Mapping[str, Any]
    #: how many tasks the ledger had before the idle run
    before_idle: int
    #: the SHA-256 of what the provider serves, by remote id, where it was asked
    truth: Mapping[str, str] = field(default_factory=dict)
    #: the provider differs from its documents: tasks may be held or stay in doubt, and that must be told
    lies: bool = False

    @property
    def held(self) -> int:
        return sum(row["state"] == HELD for row in self.rows)

    @property
    def held_and_paid(self) -> int:
        """Return how many held rows stand for a task that was accepted."""
        return sum(min(len(group.unclaimed), len(group.held)) for group in _groups(self))


def find_violations(case: Case) -> list[Violation]:
    """Return every violation."""
    checks = (_money, _ids, _states, _files, _strays, _journal, _exits, _idle)
    return [Violation(*found) for check in checks for found in check(case)]


@dataclass(frozen=True)
class _Group:
    """All tasks with one prompt, in the job and in the ledger. Duplicates differ only in their number."""

    prompt: str
    rows: list[Mapping[str, Any]]
    accepted: list[Mapping[str, Any]]
    unclaimed: list[Mapping[str, Any]]

    @property
    def held(self) -> list[Mapping[str, Any]]:
        return [row for row in self.rows if row["state"] == HELD]

    @property
    def open(self) -> list[Mapping[str, Any]]:
        return [row for row in self.rows if row["state"] in OPEN]


def prompt_of(request: Mapping[str, Any]) -> str:
    return str(request.get("ref_prompt") or request.get("prompt"))


def made_as(remote_id: str) -> str:
    """Return the ledger's id of a task, whose lists may show another."""
    return remote_id.removeprefix(OTHER_ID)


def _groups(case: Case) -> list[_Group]:
    rows, accepted = defaultdict(list), defaultdict(list)
    for row in case.rows:
        rows[prompt_of(row["request"])].append(row)
    for task in case.ledger:
        accepted[prompt_of(task["request"])].append(task)
    claimed = {made_as(row["remote_id"]) for row in case.rows if row["remote_id"]}
    return [
        _Group(prompt, rows[prompt], accepted[prompt], [task for task in accepted[prompt] if task["id"] not in claimed])
        for prompt in sorted(rows.keys() | accepted.keys())
    ]


def _money(case: Case) -> Findings:
    """Check that each task is accepted once, by number of duplicates and by reference if there is one."""
    for group in _groups(case):
        if len(group.accepted) > len(group.rows):
            yield "double", f"{group.prompt!r}: {len(group.rows)} wanted, {_timeline(case, group)}"
        covered = len(group.open) if case.lies else 0 if case.can_reconcile else len(group.held)
        if len(group.unclaimed) > covered:
            yield "orphan", f"{group.prompt!r}: {_ids_of(group.unclaimed)} claimed by no row, {_timeline(case, group)}"
    if case.by_reference:
        for reference, count in Counter(task["external_id"] for task in case.ledger).items():
            if count > 1 and reference is not None:
                yield "double", f"the reference {reference} was accepted {count} times"


def _timeline(case: Case, group: _Group) -> str:
    """Return the times of a prompt's intents and acceptances, in seconds."""
    meant = [line for line in case.journal if line["t"] == "intent" and group.prompt in line["request"]]
    times = sorted([(line["at"], "meant") for line in meant] + [(task["at"], "accepted") for task in group.accepted])
    return ", ".join(f"{what} at {at - times[0][0]:.2f}" for at, what in times)


def _ids_of(tasks: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(task["id"] for task in tasks)


def _ids(case: Case) -> Findings:
    """Check that each claimed id is of an accepted task with the same request, and of no other row."""
    ledger = {task["id"]: task for task in case.ledger}
    claimed = Counter(made_as(row["remote_id"]) for row in case.rows if row["remote_id"])
    for remote_id, count in claimed.items():
        if count > 1:
            yield "swapped", f"{remote_id} is claimed by {count} rows"
    for row in case.rows:
        task = ledger.get(made_as(row["remote_id"] or ""))
        if row["remote_id"] and task is None:
            yield "phantom", f"{row['ref']} claims {row['remote_id']}, which was never accepted"
        elif task and prompt_of(task["request"]) != prompt_of(row["request"]):
            yield "swapped", f"{row['ref']} claims {task['id']}, which was made of another prompt"
        elif task and case.by_reference and task["external_id"] not in {row["ref"], None}:
            yield "swapped", f"{row['ref']} claims {task['id']}, whose reference is {task['external_id']}"


def _states(case: Case) -> Findings:
    for row in case.rows:
        if row["state"] not in {DONE, HELD} and not (case.lies and row["state"] in UNFINISHED):
            yield "lost", f"{row['ref']} is {row['state']} ({row['reason']}: {row['message']})"


def _files(case: Case) -> Findings:
    """Check that every finished task has its complete file, as recorded and as the provider serves it."""
    for row in case.rows:
        if row["state"] != DONE:
            continue
        if not row["outputs"]:
            yield "file", f"{row['ref']} is done without a file"
        for output in row["outputs"]:
            wrong = _wrong_with(case, row, output)
            if wrong:
                yield "file", f"{output['file']}: {wrong}"


def _wrong_with(case: Case, row: Mapping[str, Any], output: Mapping[str, Any]) -> str:
    path = case.directory / (output["file"] or "nameless")
    if not path.is_file():
        return "is not there"
    data = path.read_bytes()
    digest = sha256(data).hexdigest()
    if digest != output["sha256"] or len(data) != output["bytes"]:
        return f"{len(data)} bytes, not the {output['bytes']} that were recorded, or others"
    if not data.endswith(PNG_END):
        return "does not end as a PNG does"
    if case.truth.get(row["remote_id"], digest) != digest:
        return "is not what the provider serves"
    return ""


def _strays(case: Case) -> Findings:
    """Check that no file lacks a row and no partial file lacks a download."""
    named = {output["file"] for row in case.rows for output in row["outputs"]}
    for path in case.directory.glob("*.png"):
        if path.name not in named:
            yield "file", f"{path.name} belongs to no task"
    for path in case.directory.glob(".runner/parts/*"):
        yield "file", f"{path.name} was left behind"


def _journal(case: Case) -> Findings:
    """Check intent before acceptance, intent before id, every id of a row in the journal, and rising epochs.

    A run that died between its first line and its first commit has done nothing, and the next one has its epoch.
    """
    meant: Counter[str] = Counter()
    recorded: dict[str, str] = {}
    epoch, idle = 0, False
    for line in case.journal:
        match line["t"]:
            case "epoch":
                if line["epoch"] < epoch + (not idle):
                    yield "journal", f"epoch {line['epoch']} follows {epoch}"
                epoch = line["epoch"]
            case "intent":
                meant[line["ref"]] += 1
            case "id":
                if not meant[line["ref"]]:
                    yield "journal", f"{line['ref']} got an id before it was meant to be sent"
                recorded[line["ref"]] = line["remote_id"]
        idle = line["t"] == "epoch"
    for row in case.rows:
        if row["remote_id"] and recorded.get(row["ref"]) != row["remote_id"]:
            yield "journal", f"{row['ref']}: {row['remote_id']} in the database, {recorded.get(row['ref'])} on record"
    yield from _unmeant(case)


def _unmeant(case: Case) -> Findings:
    """Return accepted tasks whose request left before, or without, a recorded intent."""
    intents = defaultdict(list)
    for line in case.journal:
        if line["t"] == "intent":
            intents[line["ref"]].append(line["at"])
    refs = {row["ref"]: prompt_of(row["request"]) for row in case.rows}
    by_prompt = defaultdict(list)
    for ref, times in intents.items():
        by_prompt[refs.get(ref, "")] += times
    met: Counter[str] = Counter()
    for task in case.ledger:
        by_reference = case.by_reference and task["external_id"] is not None
        mark = task["external_id"] if by_reference else prompt_of(task["request"])
        times = intents[mark] if by_reference else by_prompt[mark]
        met[mark] += 1
        if sum(at <= task["at"] for at in times) < met[mark]:
            yield "journal", f"{task['id']} was accepted without an intent on record before it"


def _exits(case: Case) -> Findings:
    """Check that the exit code is 4 exactly if a task is held, and that every held task is named."""
    if case.lies:
        expected = COMPLETE if all(row["state"] == DONE for row in case.rows) else {4, WAITING}
        if case.idle["exit_code"] not in expected:
            yield "exit", f"the idle run: {case.idle['exit_code']}: {case.idle['reasons']}"
        return
    wanted = 4 if case.held else 0
    for name, summary in (("last", case.last), ("idle", case.idle)):
        if summary["exit_code"] != wanted:
            yield "exit", f"the {name} run: {summary['exit_code']} with {case.held} held: {summary['reasons']}"
        if len(summary["in_doubt"]) != case.held or summary["counts"].get(HELD, 0) != case.held:
            yield "exit", f"the {name} run names {len(summary['in_doubt'])} of {case.held} held"


def _idle(case: Case) -> Findings:
    bought = len(case.ledger) - case.before_idle
    if case.lies and any(row["state"] in OPEN for row in case.rows):
        return  # each run may settle what waited
    if bought or case.idle["submitted"] or case.idle["downloaded"]:
        yield "idle", f"{bought} bought, {case.idle['submitted']} submitted, {case.idle['downloaded']} downloaded"
