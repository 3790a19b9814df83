"""Fault injection into a store in the middle of a statement, and reading of a job's files as another program."""

from __future__ import annotations

import shutil
import sqlite3
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiosqlite

from runner.lifecycle.task import Output, Task
from runner.store import journal, sql
from runner.store.rows import task_from

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILES = ("state.db", "state.db-wal", "journal.jsonl")
_TASKS = "select task.*, draft.* from task join draft on draft.task_id = task.id"


class FaultInjector:
    """Inject one fault in the database's own thread.

    A crash is a copy of the files, as a process leaves them that dies there. `crash before` and `crash after` strike at
    the nth commit, `crash torn journal` and `crash torn commit` in the middle of what was written for it. `full begin`,
    `full update`, `full mark` and `full commit` strike at the next n statements of that sort. `full ever more` strikes
    at one commit, and then at the updates before the next one too.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kind, self._left, self._part = "", 0, 0.0
        #: copy of the files at the fault, None before it; whether the commit is in the copy
        self.copy: Path | None = None
        self.committed = False
        self._copies = self._began = 0

    def arm(self, kind: str, nth: int = 1, part: float = 0.0) -> None:
        self.kind, self._left, self._part, self.copy = kind, nth, part, None

    async def connect(self, path: Path) -> aiosqlite.Connection:
        """Open a connection as the store does, with this injector in it."""
        execute_statement = self._execute

        class Watched(sqlite3.Connection):
            def execute(self, statement, *parameters):
                return execute_statement(statement, lambda: super(Watched, self).execute(statement, *parameters))

        return await aiosqlite.connect(path, isolation_level=None, cached_statements=256, factory=Watched)

    def copy_files(self, *lost: str) -> Path:
        """Copy the job's files, except those that are `lost`, to a new directory and return it."""
        self._copies += 1
        copy = self.directory.with_name(f"job-{self._copies}")
        copy.mkdir()
        for name in set(FILES) - set(lost):
            if (self.directory / name).exists():
                shutil.copyfile(self.directory / name, copy / name)
        return copy

    def _execute(self, statement: str, run: Callable[[], Any]) -> Any:
        word = "mark" if statement == sql.queries()["set_journal"] else statement.split(maxsplit=1)[0].lower()
        if word == "begin":
            self._began = self._size("journal.jsonl")
        if self.kind.startswith("full"):
            self._fill(word)
        if word == "commit" and self.kind.startswith("crash") and self.copy is None:
            self._left -= 1
            if self._left == 0:
                return self._crash(run)
        return run()

    def _fill(self, word: str) -> None:
        if self.kind == "full ever more" and word == "commit":
            self.kind, self._left = "full update", 10**6
        elif self.kind != f"full {word}" or self._left == 0:
            return
        self._left -= 1
        raise sqlite3.OperationalError("database or disk is full")

    def _crash(self, run: Callable[[], Any]) -> Any:
        before = self._size("state.db-wal")
        if self.kind in {"crash before", "crash torn journal"}:
            self.committed, self.copy = False, self.copy_files()
            if self.kind == "crash torn journal":
                self._tear("journal.jsonl", self._began)
            return run()
        done, after = run(), self._size("state.db-wal")
        self.committed, self.copy = self.kind == "crash after" or after <= before, self.copy_files()
        if not self.committed:
            self._tear("state.db-wal", before)
        return done

    def _tear(self, name: str, whole: int) -> None:
        path = self.copy / name
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.truncate(whole + int((size - whole) * self._part))

    def _size(self, name: str) -> int:
        path = self.directory / name
        return path.stat().st_size if path.exists() else 0


@dataclass(frozen=True)
class DiskState:
    """Content of a job's files, as another program reads it."""

    rows: dict[str, dict[str, Any]]
    tasks: dict[str, Task]
    former: set[tuple[str, str]]
    spent: float
    digest: str
    counts: dict[str, int]

    @property
    def positions(self) -> dict[str, int | None]:
        return {key: row["position"] for key, row in self.rows.items()}


def read_state(directory: Path) -> DiskState:
    with closing(_reader(directory)) as connection:
        connection.row_factory = sqlite3.Row
        outputs, rows, tasks = defaultdict(list), {}, {}
        for row in connection.execute("select * from output order by task_id, number"):
            outputs[row["task_id"]].append(Output(*tuple(row)[1:]))
        for row in connection.execute(_TASKS):
            found = tuple(outputs[row["id"]])
            rows[row["key"]], tasks[row["key"]] = {**dict(row), "outputs": found}, task_from(row, found)
        former = {tuple(row) for row in connection.execute("select provider, remote_id from former")}
        counts = dict(tuple(row) for row in connection.execute("select state, count(*) from task group by state"))
        (job,) = connection.execute("select spent, digest from job")
        return DiskState(rows, tasks, former, *tuple(job), counts)


def keys_in(directory: Path) -> set[str] | None:
    """Return the keys that a database has rows for, or None if it has no tables."""
    with closing(_reader(directory)) as connection:
        if not connection.execute("select 1 from sqlite_schema where name = 'task'").fetchone():
            return None
        return {key for (key,) in connection.execute("select key from task")}


def _reader(directory: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{directory / 'state.db'}?mode=ro", uri=True)


def read_lines(directory: Path) -> list[dict[str, Any]]:
    """Return every line of the journal, and check all checksums, the last one's too."""
    raw = (directory / "journal.jsonl").read_bytes()
    lines = [journal.decode(line) for line in raw.splitlines(keepends=True)]
    assert None not in lines, raw[-300:]
    return lines


#: state of a purchase after a line: none, open, paid or ended
_PURCHASE = {"intent": "open", "id": "paid", "saved": "paid", "retry": "none", "held": "open", "bonus": "paid"}
_SETTLED = {"queued": "none", "failed": "ended"}


def find_double_purchase(lines: list[dict[str, Any]], given_up: set[str]) -> str | None:
    """Return a key whose request left although an earlier purchase was open or paid, or None if there is none.

    `given_up` has the keys whose intent is only in the journal, because of a full disk: nothing was sent.
    """
    keys, purchases, last = {}, defaultdict(lambda: "none"), {}
    for line in lines:
        if line["t"] == "epoch":
            continue
        key = keys.setdefault(line["ref"], line.get("key"))
        again, last[key] = last.get(key) == line, line
        if line["t"] == "intent" and purchases[key] != "none" and not again and key not in given_up:
            return key
        purchases[key] = _PURCHASE.get(line["t"]) or _SETTLED[line["state"]]
        if line["t"] == "retry":
            keys[line["next"]] = key
    return None
