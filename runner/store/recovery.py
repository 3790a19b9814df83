"""Recovery of a job from its journal: merged into the database at each start, or read in full to rebuild it.

Lines that the database lacks are the normal trace of a crash within its own epoch, and are merged. One of the two was
replaced if the journal is shorter than the offset in the database, belongs to another database, or has changes of later
runs. Then the job is refused with StateError (exit code 13).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.errors import StateError
from runner.store.database import RECOVER_HINT, execute, statements
from runner.store.journal import Journal, invalid_field, read_lines, read_tail, unsent_line
from runner.store.task_rows import check_output_name, task_columns, task_from
from runner.tasks.models import NO_ERROR, Moment, State, Task, TaskError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from runner.store.journal import JournalLine

#: hint for a journal that is damaged or was replaced
RESTORE_COPY_HINT = "Put back a good copy of the job directory; the provider's console lists what was bought."
#: hint for a journal that is lost beside a whole database
LOST_JOURNAL_HINT = "Keep a copy of the job directory; then `runner recover MANIFEST` writes the journal anew."


#: kinds of lines that list the files of a task
_WITH_FILES = frozenset({"saved", "linked"})


@dataclass(frozen=True, slots=True)
class TaskHistory:
    """Journal lines of one task key: its latest intent, and all lines of all its purchases in order."""

    intent: JournalLine
    lines: tuple[JournalLine, ...]

    @property
    def files(self) -> list[dict[str, Any]]:
        """Return the saved outputs of the latest purchase, empty if it is not done."""
        ref = self.intent["ref"]
        found = (line["files"] for line in reversed(self.lines) if line["t"] in _WITH_FILES and line["ref"] == ref)
        return next(found, [])


def check_database_present(database: Path, journal: Path) -> None:
    """Raise StateError if the database is missing or empty, but the journal beside it has tasks."""
    empty = not database.exists() or database.stat().st_size == 0
    if empty and any("key" in line for line, _ in read_lines(journal)):
        raise StateError(f"{database} is gone, but the journal beside it knows of tasks", hint=RECOVER_HINT)


def open_journal(connection: sqlite3.Connection, path: Path) -> Journal:
    """Merge the lines that only the journal has into the database, and open the journal for appending.

    Raises StateError, DiskError and sqlite3.Error.
    """
    job = execute(connection, "job").fetchone()
    size = path.stat().st_size if path.exists() else 0
    if size < job["journal"]:
        raise StateError(f"{path} is shorter than the database knows it", hint=LOST_JOURNAL_HINT)
    first = next((line for line, _ in read_lines(path)), None)
    if first is not None and first.get("uuid") != job["uuid"]:
        raise StateError(f"{path} belongs to another database", hint=RECOVER_HINT)
    tail = read_tail(path, job["journal"])
    for line in tail.lines:
        _check_fields(path, line)
    if has_later_run(tail.lines, job["epoch"]):
        raise StateError(f"{path} knows of later runs than the database: it was put back", hint=RECOVER_HINT)
    connection.execute("begin immediate")
    for line in tail.lines:
        row = execute(connection, "by_ref", ref=line.get("ref", "")).fetchone()
        if row is not None:
            replay(connection, task_from(row), (line,))
        # a retry that was journaled twice has given the task its next reference already
        elif "ref" in line and execute(connection, "by_ref", ref=line.get("next", "")).fetchone() is None:
            raise StateError(
                "the journal knows of tasks that the database has lost: it is an older copy", hint=RECOVER_HINT
            )
    execute(connection, "set_journal", journal=tail.end)
    connection.execute("commit")
    return Journal(path, tail.end)


def catch_up(connection: sqlite3.Connection, lines: Sequence[JournalLine]) -> list[JournalLine]:
    """Apply the journal lines of a transaction that was rolled back in this process.

    Return the lines that withdraw the intents among them: their callers got an error, so nothing was sent.
    Must be called in a transaction.
    """
    unsent, latest = [], {line.get("ref"): line for line in lines}
    for line in lines:
        row = execute(connection, "by_ref", ref=line.get("ref", "")).fetchone()
        task = None if row is None else task_from(row)
        if task is not None and line["t"] != "intent":
            replay(connection, task, (line,))
        elif task is not None and task.state is State.QUEUED and line is latest[task.ref]:
            unsent.append(unsent_line(task))
    return unsent


def replay(connection: sqlite3.Connection, task: Task, lines: Iterable[JournalLine]) -> Task:
    """Apply lines of the journal to a task and write its row; every remote id that it ever had stays claimed.

    A task that is to be bought again is not due if its draft was removed from the manifest, as when it is settled.
    Must be called in a transaction. Raises sqlite3.IntegrityError if the task's id belongs to another task.
    """
    for line in lines:
        after = apply(task, line)
        if task.remote_id not in {None, after.remote_id}:
            execute(connection, "keep_former_id", provider=task.provider, remote_id=task.remote_id)
            execute(connection, "drop_outputs", task_id=task.id)
        task = after
        if line["t"] == "linked":  # unlike those of a download, its files were not in the database before
            restore_files(connection, task, line["files"])
    execute(connection, "restore", **task_columns(task))
    if task.state is State.QUEUED:
        execute(connection, "unschedule_removed", id=task.id)
    return task


def apply(task: Task, line: JournalLine) -> Task:
    """Return the task after one line of the journal.

    After an intent alone the task is `submitting`: a submit whose answer is unknown.
    """
    match line["t"]:
        case "intent":
            return replace(
                task,
                state=State.SUBMITTING,
                due_at=None,
                generation=line["generation"],
                ref=line["ref"],
                remote_id=None,
                spent=line.get("spent", task.spent),
                sent=Moment(line["boot"], line["seconds"]),
                submitted_at=line["at"],
                since=line["at"],
            )
        case "id":
            return replace(
                task,
                state=State.RUNNING,
                due_at=0.0,
                remote_id=line["remote_id"],
                adopted=line["adopted"],
                spent=line.get("spent", task.spent),
                failures=0,
                absences=0,
                error=NO_ERROR,
                reason=line.get("evidence", task.reason),
            )
        case "settle" | "held":
            return _apply_outcome(task, line)
        case "bonus" if task.remote_id is not None:
            return replace(task, state=State.RUNNING, due_at=0.0, spent=line["spent"], error=NO_ERROR)
        case "linked":
            error = NO_ERROR if line["reason"] is None else TaskError(line["reason"], None, line["message"])
            state, due_at = (State.DONE, None) if line["files"] else (State.RUNNING, 0.0)
            task = replace(task, state=state, due_at=due_at, remote_id=line["remote_id"], adopted=True, sent=None)
            return replace(task, failures=0, absences=0, error=error, reason=line["evidence"])
        case "retry":
            again = replace(task, generation=line["generation"], ref=line["next"], doubts=0, attempts=0, throttles=0)
            return replace(_reset_for_submit(again), refreshes=0, error=NO_ERROR, reason="retried")
        case "saved" if task.remote_id is not None:
            error = NO_ERROR if line["reason"] is None else TaskError(line["reason"])
            return replace(task, state=State.DONE, due_at=None, error=error)
        case _:
            return task


def restore_files(connection: sqlite3.Connection, task: Task, files: Iterable[Mapping[str, Any]]) -> None:
    """Insert the files that a line of the journal lists, but for names that lead out of the job directory."""
    rows = [{**file, "task_id": task.id} for file in files if check_output_name(file["file"])]
    connection.executemany(statements()["restore_output"], rows)


class JournalContent(NamedTuple):
    """All that a journal knows: the job's identity, its latest epoch, where the journal ends, and every purchase."""

    uuid: str
    epoch: int
    #: bytes
    end: int
    histories: list[TaskHistory]
    #: provider and remote id of earlier purchases whose own lines are lost
    former: list[tuple[str, str]]


def read_histories(path: Path) -> JournalContent:
    """Return the content of a journal, with the history of every key that was ever bought.

    Raises StateError.
    """
    uuid, epoch, end = "", 0, 0
    former: list[tuple[str, str]] = []
    keys: dict[str, str] = {}
    latest: dict[str, JournalLine] = {}
    lines: dict[str, list[JournalLine]] = {}
    for line, behind in read_lines(path):
        _check_fields(path, line)
        end = behind
        match line["t"]:
            case "epoch":
                uuid, epoch = line["uuid"], line["epoch"]
            case "former":
                former.append((line["provider"], line["remote_id"]))
            case _ if "key" in line:
                keys[line["ref"]], latest[line["key"]] = line["key"], line
                lines.setdefault(line["key"], []).append(line)
            case _:
                lines.get(keys.get(line.get("ref", ""), ""), []).append(line)
    histories = [TaskHistory(intent, tuple(lines[key])) for key, intent in latest.items()]
    return JournalContent(uuid, epoch, end, histories, former)


def has_later_run(lines: Iterable[JournalLine], epoch: int) -> bool:
    """Return whether the journal has changes of a run that began after the database's last one.

    A run that died between its first line and its first commit has changed nothing. The next run has the same epoch.
    """
    is_later = False
    for line in lines:
        is_later = is_later or (line["t"] == "epoch" and line["epoch"] > epoch)
        if is_later and (line["t"] != "epoch" or line["epoch"] > epoch + 1):
            return True
    return False


def _check_fields(path: Path, line: JournalLine) -> None:
    """Raise StateError if this program cannot have written the line."""
    if field := invalid_field(line):
        raise StateError(
            f"{path} holds a line that is none of ours: {field!r} is missing or no such thing", hint=RESTORE_COPY_HINT
        )


def _apply_outcome(task: Task, line: JournalLine) -> Task:
    """Return the task after the outcome of a send; lines of older versions have no counters."""
    error = NO_ERROR if line["reason"] is None else TaskError(line["reason"], None, line["message"])
    absent = max(task.doubts, 1) if line["evidence"] == "absent" else task.doubts
    task = replace(
        task,
        spent=line.get("spent", task.spent),
        doubts=line.get("doubts", absent),
        attempts=line.get("attempts", task.attempts),
        throttles=line.get("throttles", task.throttles),
        error=error,
        reason=line["evidence"],
    )
    match line["state"]:
        case State.FAILED:
            return replace(task, state=State.FAILED, due_at=None)
        case State.HELD:
            return replace(task, state=State.HELD, due_at=None, remote_id=None)
        case _:
            return _reset_for_submit(task)


def _reset_for_submit(task: Task) -> Task:
    return replace(
        task, state=State.QUEUED, due_at=0.0, remote_id=None, sent=None, adopted=False, absences=0, failures=0
    )
