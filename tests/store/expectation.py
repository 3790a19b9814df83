"""Model of a job after everything that happened to it: every row, and the part of it that the journal has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from runner.store.task_rows import Addition, task_columns
from runner.tasks.models import Draft, Output, State, Task, reference

from .conftest import key_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .machine import DiskState

#: one task of three is at the second provider, one has no price, and six are duplicates of each other
PROVIDERS, PRICES = ("chanjing", "kling"), (1.5, 4.0, None)
DUPLICATES = {0: "a", 1: "a", 3: "b", 4: "b", 2: "c", 5: "c"}
_COLD = ("key", "provider", "operation", "model", "fingerprint", "slots", "cost", "name", "outputs")
PAID = {State.RUNNING, State.READY, State.STRANDED, State.DONE}
#: state after a rebuild from the journal, for states that are not journaled
FORGOTTEN = {State.IN_DOUBT: State.SUBMITTING, State.READY: State.RUNNING, State.STRANDED: State.RUNNING}


def additions(numbers: Sequence[int], salt: int) -> list[Addition]:
    """Return a manifest; positions, names and prices change with `salt`, keys do not."""
    return [_addition(number, index, salt) for index, number in enumerate(numbers, 1)]


def _addition(number: int, index: int, salt: int) -> Addition:
    provider = PROVIDERS[number % 3 == 2]
    draft = Draft(key_of(number), index, 1, {"n": number}, provider, "image", "m", {"n": number}, f"{salt}-{number}")
    return Addition(draft, DUPLICATES.get(number, ""), PRICES[(number + salt) % 3])


@dataclass(frozen=True)
class Essence:
    """Fields that money depends on, all of which are in the journal."""

    state: State
    generation: int
    ref: str
    remote_id: str | None
    spent: float


def essence(task: Task) -> Essence:
    return Essence(task.state, task.generation, task.ref, task.remote_id, task.spent)


def is_journaled(before: Task, after: Task) -> bool:
    """Return whether a change must be in the journal before it is in the database."""
    named = after.remote_id not in {None, before.remote_id}
    ended = after.state in {State.QUEUED, State.FAILED, State.HELD} and before.state is not after.state
    late = (before.state, after.state) == (State.FAILED, State.READY)
    again = after.generation != before.generation
    return named or ended or late or again or after.state in {State.SUBMITTING, State.DONE}


def as_journaled(after: Task) -> Task:
    """Return a task as the journal has it: without links, so a late result is polled once more."""
    return replace(after, state=State.RUNNING) if after.state is State.READY else after


class Expectation:
    """Every expected row by its key, and the expected state in the journal."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.positions: dict[str, int | None] = {}
        self.journaled: dict[str, Essence] = {}
        self.files: dict[str, list[tuple[Any, ...]]] = {}
        #: changes that are in the journal only, and whether the next start must apply them: an intent that is only in
        #: the journal can be withdrawn by the process that wrote it, and by no other
        self.pending: dict[str, tuple[Task, bool]] = {}
        self._before: tuple[Any, Any] = (None, None)

    def accept(self, seen: DiskState) -> None:
        self.tasks, self.positions = dict(seen.tasks), seen.positions

    # changes

    def becomes(self, after: Task) -> None:
        """Apply a change; a removed task that is to be bought again is not due."""
        before = self.tasks[after.key]
        rests = after.state is State.QUEUED and self.positions[after.key] is None
        lets_go = before.remote_id not in {None, after.remote_id}
        outputs = () if lets_go or after.generation != before.generation else _merged(before.outputs, after.outputs)
        if is_journaled(before, after):
            self.add_line(after)
        self.tasks[after.key] = replace(after, due_at=None if rests else after.due_at, outputs=outputs)

    def add_line(self, after: Task) -> None:
        self._before = self.journaled.get(after.key), self.files.get(after.key)
        self.journaled[after.key] = essence(as_journaled(after))
        if after.state is State.DONE:
            self.files[after.key] = saved(after)

    def drop_line(self, key: str) -> None:
        """Undo the last line, which was torn."""
        for known, value in zip((self.journaled, self.files), self._before, strict=True):
            known.pop(key, None)
            if value is not None:
                known[key] = value

    def loses(self, before: Task, after: Task, *, torn: bool) -> None:
        """Undo a change whose commit was lost; its line is in the journal, unless it was torn."""
        self.tasks[before.key] = before
        if is_journaled(before, after):
            if torn:
                self.drop_line(before.key)
            else:
                self.pending[before.key] = (as_journaled(after), True)

    def records(self, key: str, output: Output) -> None:
        task = self.tasks[key]
        known = [replace(output, url=each.url) if each.number == output.number else each for each in task.outputs]
        self.tasks[key] = replace(task, outputs=tuple(known))

    def plan(self, manifest: Collection[Addition], seen: DiskState) -> None:
        """Set the manifest; unbought tasks that are not in it are not due."""
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

    def half_plan(self, manifest: Collection[Addition], seen: DiskState) -> None:
        """Accept an interrupted change of the manifest: bought tasks are unchanged, others may be due or not."""
        assert set(self.tasks) <= set(seen.tasks) <= set(self.tasks) | {each.draft.key for each in manifest}
        for key, task in self.tasks.items():
            found = seen.tasks[key]
            free = {"name": found.name, "cost": found.cost}
            if task.state is State.QUEUED:
                assert found.due_at in {None, 0.0, task.due_at}
                free["due_at"] = found.due_at
            assert found == replace(task, **free)
        self.accept(seen)

    def wake(self, now: float) -> None:
        for key, task in self.tasks.items():
            waits = task.state is State.QUEUED and task.due_at is not None and task.due_at > now + 900
            if waits or task.state in {State.RUNNING, State.READY, State.IN_DOUBT}:
                since = None if task.since is None else min(task.since, now)
                due_at = now + 900 * waits
                if task.state is State.READY and task.finished_at is not None:
                    due_at = min(task.finished_at, now)
                self.tasks[key] = replace(task, due_at=due_at, failures=0, absences=0, since=since)

    # starts

    def catches_up(self, seen: DiskState) -> None:
        """Continue in the process that got an error: its journaled changes are in the database, and nothing else."""
        for key, (after, must) in list(self.pending.items()):
            if must:
                assert essence(seen.tasks[key]) == essence(after), f"in the journal: {after}"
                self.tasks[key] = seen.tasks[key]
                del self.pending[key]
            else:
                self.withdraw(self.tasks[key])

    def withdraw(self, task: Task) -> None:
        """Withdraw an intent in the journal: nothing was sent."""
        assert task.state is State.QUEUED
        self.journaled[task.key] = essence(task)
        self.pending.pop(task.key, None)

    def start(self, seen: DiskState) -> None:
        """Start again: changes that were in the journal only are now in the database."""
        for key, (after, must) in self.pending.items():
            assert not must or essence(seen.tasks[key]) == essence(after), f"in the journal: {after}"
            if essence(seen.tasks[key]) == essence(after):
                self.tasks[key] = seen.tasks[key]
        self.pending.clear()

    def rebuilt(self, manifest: Collection[Addition], seen: DiskState) -> None:
        """Rebuild from journal and manifest alone."""
        drafts = {each.draft.key: each for each in manifest}
        assert set(seen.tasks) == set(drafts) | set(self.journaled)
        for key, task in seen.tasks.items():
            journaled = self.journaled.get(key)
            if journaled is None:
                assert is_fresh(task, drafts[key])
                continue
            assert essence(task) == journaled
            assert task.state is not State.DONE or saved(task) == self.files[key]
        self.pending.clear()
        self.accept(seen)

    def reverted(self, seen: DiskState) -> None:
        """Replace the database by an older one, into which the journal was merged."""
        for key, journaled in self.journaled.items():
            found = essence(seen.tasks[key])
            forgets = {found.state, FORGOTTEN.get(found.state)} | ({State.DONE} if found.state in PAID else set())
            assert journaled.state in forgets
            assert replace(found, state=journaled.state) == journaled
        self.pending.clear()
        self.accept(seen)

    # queries

    def taken(self, task: Task) -> set[str]:
        """Return ids of this task's provider that other tasks have."""
        others = [each for each in self.tasks.values() if each.provider == task.provider and each.key != task.key]
        return {each.remote_id for each in others if each.remote_id is not None}

    def due(self, provider: str, state: State, now: float) -> list[Task]:
        """Return the tasks that a stage may claim, the longest due first."""
        doubted = {task.fingerprint for task in self.tasks.values() if task.state is State.IN_DOUBT} - {""}
        due = [
            (task.due_at, task.id, task)
            for task in self.tasks.values()
            if (task.state, task.provider) == (state, provider) and task.due_at is not None and task.due_at <= now
        ]
        return [task for _, _, task in sorted(due) if state is not State.QUEUED or task.fingerprint not in doubted]

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the expected rows of `read_state`."""
        return {key: self._row(key, task) for key, task in self.tasks.items()}

    def _row(self, key: str, task: Task) -> dict[str, Any]:
        cold = {name: getattr(task, name) for name in _COLD}
        return {**task_columns(task), **cold, "request": task.request.decode(), "position": self.positions[key]}


def saved(task: Task) -> list[tuple[Any, ...]]:
    return [(output.number, output.file, output.bytes, output.sha256) for output in task.outputs]


def is_fresh(task: Task, each: Addition) -> bool:
    """Return whether a row is as its draft made it, and not bought; its due time depends on the manifest."""
    made = (task.key, task.provider, task.fingerprint, task.name, task.cost)
    wanted = (each.draft.key, each.draft.provider, each.fingerprint, each.draft.name, each.cost)
    ref = reference(task.ref[1:11], task.key, 1)
    return made == wanted and essence(task) == Essence(State.QUEUED, 1, ref, None, 0.0)


def _wanted(task: Task, each: Addition) -> Task:
    name = task.name if task.state in {State.DONE, State.READY} else each.draft.name
    cost = each.cost if task.state in {State.QUEUED, State.FAILED} else task.cost
    return replace(task, name=name, cost=cost, due_at=0.0 if task.state is State.QUEUED else task.due_at)


def _merged(known: tuple[Output, ...], fresh: tuple[Output, ...]) -> tuple[Output, ...]:
    """Return the known outputs with fresh links; saved files are kept."""
    by_number = {output.number: output for output in known}
    for output in fresh:
        by_number[output.number] = replace(by_number.get(output.number, output), url=output.url)
    return tuple(by_number[number] for number in sorted(by_number))
