"""What must be true of a job after everything that happened to it: every row, and what of it the journal knows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from runner.lifecycle.task import Draft, Output, State, Task, reference
from runner.store.adding import Addition
from runner.store.rows import columns

from .conftest import key_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .machine import Seen

#: one task of three at the second provider, one without a price, and six of them are twins
PROVIDERS, PRICES = ("chanjing", "kling"), (1.5, 4.0, None)
TWINS = {0: "a", 1: "a", 3: "b", 4: "b", 2: "c", 5: "c"}
_COLD = ("key", "provider", "operation", "model", "fingerprint", "slots", "cost", "name", "outputs")
PAID = {State.RUNNING, State.READY, State.STRANDED, State.DONE}
#: what a state that is not journaled becomes where only the journal is left
FORGOTTEN = {State.IN_DOUBT: State.SUBMITTING, State.READY: State.RUNNING, State.STRANDED: State.RUNNING}


def additions(numbers: Sequence[int], salt: int) -> list[Addition]:
    """A manifest: places, names and prices may change from one to the next, keys do not."""
    return [_addition(number, index, salt) for index, number in enumerate(numbers, 1)]


def _addition(number: int, index: int, salt: int) -> Addition:
    provider = PROVIDERS[number % 3 == 2]
    draft = Draft(key_of(number), index, 1, {"n": number}, provider, "image", "m", {"n": number}, f"{salt}-{number}")
    return Addition(draft, TWINS.get(number, ""), PRICES[(number + salt) % 3])


@dataclass(frozen=True)
class Essence:
    """What money depends on: all of it is in the journal."""

    state: State
    generation: int
    ref: str
    remote_id: str | None
    spent: float


def essence(task: Task) -> Essence:
    return Essence(task.state, task.generation, task.ref, task.remote_id, task.spent)


def is_told(before: Task, after: Task) -> bool:
    """Whether the journal must hear of a change before the database does."""
    named = after.remote_id not in {None, before.remote_id}
    ended = after.state in {State.QUEUED, State.FAILED, State.HELD} and before.state is not after.state
    bonus = (before.state, after.state) == (State.FAILED, State.READY)
    again = after.generation != before.generation
    return named or ended or bonus or again or after.state in {State.SUBMITTING, State.DONE}


def as_told(after: Task) -> Task:
    """A task as the journal has it: links are not in it, so what was made after all is asked about once more."""
    return replace(after, state=State.RUNNING) if after.state is State.READY else after


class Expectation:
    """Every row by its key, and beside it what the journal knows."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.positions: dict[str, int | None] = {}
        self.told: dict[str, Essence] = {}
        self.files: dict[str, list[tuple[Any, ...]]] = {}
        #: what the journal says and the database not yet, and whether it must from the next start on: of an intent that
        #: only a journal knows, the process that wrote it can say that nothing was sent, and no other
        self.pending: dict[str, tuple[Task, bool]] = {}
        self._before: tuple[Any, Any] = (None, None)

    def believe(self, seen: Seen) -> None:
        self.tasks, self.positions = dict(seen.tasks), seen.positions

    # changes

    def becomes(self, after: Task) -> None:
        """A change is on disk; what is to be bought again but left the manifest rests."""
        before = self.tasks[after.key]
        rests = after.state is State.QUEUED and self.positions[after.key] is None
        lets_go = before.remote_id not in {None, after.remote_id}
        outputs = () if lets_go or after.generation != before.generation else _merged(before.outputs, after.outputs)
        if is_told(before, after):
            self.hears(after)
        self.tasks[after.key] = replace(after, due_at=None if rests else after.due_at, outputs=outputs)

    def hears(self, after: Task) -> None:
        self._before = self.told.get(after.key), self.files.get(after.key)
        self.told[after.key] = essence(as_told(after))
        if after.state is State.DONE:
            self.files[after.key] = saved(after)

    def unhears(self, key: str) -> None:
        """The last line was torn: it never was."""
        for known, value in zip((self.told, self.files), self._before, strict=True):
            known.pop(key, None)
            if value is not None:
                known[key] = value

    def loses(self, before: Task, after: Task, *, torn: bool) -> None:
        """The process died before the commit of a change; its line is in the journal, unless it was torn."""
        self.tasks[before.key] = before
        if is_told(before, after):
            if torn:
                self.unhears(before.key)
            else:
                self.pending[before.key] = (as_told(after), True)

    def records(self, key: str, output: Output) -> None:
        task = self.tasks[key]
        known = [replace(output, url=each.url) if each.number == output.number else each for each in task.outputs]
        self.tasks[key] = replace(task, outputs=tuple(known))

    def plan(self, manifest: Collection[Addition], seen: Seen) -> None:
        """The manifest is these drafts: what is not bought and not among them rests."""
        self.positions = dict.fromkeys(self.positions)
        for key, task in self.tasks.items():
            if task.state is State.QUEUED:
                self.tasks[key] = replace(task, due_at=None)
        for each in manifest:
            key = each.draft.key
            if key not in self.tasks:
                self.tasks[key] = seen.tasks[key]
                assert is_fresh(seen.tasks[key], each)
            self.tasks[key] = _wanted(self.tasks[key], each)
            self.positions[key] = each.draft.index

    def half_plan(self, manifest: Collection[Addition], seen: Seen) -> None:
        """Somewhere in the middle of that: what is bought is as it was, what is not may rest or not."""
        assert set(self.tasks) <= set(seen.tasks) <= set(self.tasks) | {each.draft.key for each in manifest}
        for key, task in self.tasks.items():
            found = seen.tasks[key]
            free = {"name": found.name, "cost": found.cost}
            if task.state is State.QUEUED:
                assert found.due_at in {None, 0.0, task.due_at}
                free["due_at"] = found.due_at
            assert found == replace(task, **free)
        self.believe(seen)

    def wake(self, now: float) -> None:
        for key, task in self.tasks.items():
            waits = task.state is State.QUEUED and task.due_at is not None and task.due_at > now + 900
            if waits or task.state in {State.RUNNING, State.READY, State.IN_DOUBT}:
                since = None if task.since is None else min(task.since, now)
                self.tasks[key] = replace(task, due_at=now + 900 * waits, failures=0, looks=0, since=since)

    # starts

    def catches_up(self, seen: Seen) -> None:
        """The process that was told of an error goes on: what it has journaled is in the database, nothing else is."""
        for key, (after, must) in list(self.pending.items()):
            if must:
                assert essence(seen.tasks[key]) == essence(after), f"the journal knew: {after}"
                self.tasks[key] = seen.tasks[key]
                del self.pending[key]
            else:
                self.takes_back(self.tasks[key])

    def takes_back(self, task: Task) -> None:
        """The journal knows of an intent that nothing was sent."""
        assert task.state is State.QUEUED
        self.told[task.key] = essence(task)
        self.pending.pop(task.key, None)

    def start(self, seen: Seen) -> None:
        """What only the journal knew is in the database now; all else is compared with the next look."""
        for key, (after, must) in self.pending.items():
            assert not must or essence(seen.tasks[key]) == essence(after), f"the journal knew: {after}"
            if essence(seen.tasks[key]) == essence(after):
                self.tasks[key] = seen.tasks[key]
        self.pending.clear()

    def rebuilt(self, manifest: Collection[Addition], seen: Seen) -> None:
        """Only the journal was left, and the manifest."""
        drafts = {each.draft.key: each for each in manifest}
        assert set(seen.tasks) == set(drafts) | set(self.told)
        for key, task in seen.tasks.items():
            told = self.told.get(key)
            if told is None:
                assert is_fresh(task, drafts[key])
                continue
            assert essence(task) == told
            assert task.state is not State.DONE or saved(task) == self.files[key]
        self.pending.clear()
        self.believe(seen)

    def reverted(self, seen: Seen) -> None:
        """The database is an older one, and what the journal knew has been merged."""
        for key, told in self.told.items():
            found = essence(seen.tasks[key])
            forgets = {found.state, FORGOTTEN.get(found.state)} | ({State.DONE} if found.state in PAID else set())
            assert told.state in forgets
            assert replace(found, state=told.state) == told
        self.pending.clear()
        self.believe(seen)

    # questions

    def taken(self, task: Task) -> set[str]:
        """Ids of this task's provider that others have."""
        others = [each for each in self.tasks.values() if each.provider == task.provider and each.key != task.key]
        return {each.remote_id for each in others if each.remote_id is not None}

    def due(self, provider: str, state: State, now: float) -> list[Task]:
        """What a stage may claim, the longest due first."""
        doubted = {task.fingerprint for task in self.tasks.values() if task.state is State.IN_DOUBT} - {""}
        due = [
            (task.due_at, task.id, task)
            for task in self.tasks.values()
            if (task.state, task.provider) == (state, provider) and task.due_at is not None and task.due_at <= now
        ]
        return [task for _, _, task in sorted(due) if state is not State.QUEUED or task.fingerprint not in doubted]

    def rows(self) -> dict[str, dict[str, Any]]:
        """What `look` must find."""
        return {key: self._row(key, task) for key, task in self.tasks.items()}

    def _row(self, key: str, task: Task) -> dict[str, Any]:
        cold = {name: getattr(task, name) for name in _COLD}
        return {**columns(task), **cold, "request": task.request.decode(), "position": self.positions[key]}


def saved(task: Task) -> list[tuple[Any, ...]]:
    return [(output.number, output.file, output.bytes, output.sha256) for output in task.outputs]


def is_fresh(task: Task, each: Addition) -> bool:
    """A row as a draft makes it, not bought yet; its due time depends on whether the manifest still has it."""
    made = (task.key, task.provider, task.fingerprint, task.name, task.cost)
    wanted = (each.draft.key, each.draft.provider, each.fingerprint, each.draft.name, each.cost)
    ref = reference(task.ref[1:11], task.key, 1)
    return made == wanted and essence(task) == Essence(State.QUEUED, 1, ref, None, 0.0)


def _wanted(task: Task, each: Addition) -> Task:
    name = task.name if task.state in {State.DONE, State.READY} else each.draft.name
    cost = each.cost if task.state in {State.QUEUED, State.FAILED} else task.cost
    return replace(task, name=name, cost=cost, due_at=0.0 if task.state is State.QUEUED else task.due_at)


def _merged(known: tuple[Output, ...], told: tuple[Output, ...]) -> tuple[Output, ...]:
    """A fresh link for an output that is known; a file that is saved stays saved."""
    by_number = {output.number: output for output in known}
    for output in told:
        by_number[output.number] = replace(by_number.get(output.number, output), url=output.url)
    return tuple(by_number[number] for number in sorted(by_number))
