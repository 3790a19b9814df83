"""A read-only look at a job, beside a run or without one; needs nothing but SQLite."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import orjson

from runner.errors import NoSuchJob
from runner.store import journal, sql
from runner.store.rows import beside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: tasks of a group that are named
_EXAMPLES = 3


class SavedFile(NamedTuple):
    """A file that a finished task has, and what the manifest calls it now."""

    task_id: int
    key: str
    name: str
    number: int
    file: str
    #: how many outputs its task has
    of: int


class View:
    """What a job's database says, through a connection that cannot write."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def counts(self) -> dict[str, int]:
        """How many tasks are in each state, without the unbought ones that left the manifest."""
        counts = dict(self._rows("counts"))
        gone = self._rows("gone")[0][0]
        counts["queued"] = counts.get("queued", 0) - gone
        return {state: count for state, count in counts.items() if count}

    def counts_by_provider(self) -> dict[str, dict[str, int]]:
        """The same for each provider."""
        counts: dict[str, dict[str, int]] = {}
        for provider, state, count in self._rows("counts_by_provider"):
            counts.setdefault(provider, {})[state] = count
        return counts

    def latest(self, most: int) -> list[dict[str, Any]]:
        """The files that came last, the newest first: key, file, media type, and when, seconds since the epoch."""
        return [dict(row) for row in self._rows("latest", most=most)]

    def gone(self) -> int:
        """How many unbought tasks left the manifest."""
        return int(self._rows("gone")[0][0])

    def left(self) -> int:
        """How many tasks that were sent are no longer in the manifest."""
        return int(self._rows("left")[0][0])

    def given_up(self) -> int:
        """How many failed tasks are no longer in the manifest, so that nobody waits for them."""
        return int(self._rows("given_up")[0][0])

    def faults(self) -> list[dict[str, Any]]:
        """Why tasks failed, were stranded or are held: state, reason, an example message, how many, and their money.

        `paid` of them cost something, `cost` together; `unpriced` were accepted and nobody knows their price; `tasks`
        are the names of a few. What failed and has left the manifest is not among them.
        """
        names = ("state", "reason", "message", "count", "paid", "cost", "unpriced")
        found = [dict(zip(names, row, strict=True)) for row in self._rows("faults")]
        return [fault | {"tasks": self._examples(fault["state"], fault["reason"])} for fault in found]

    def _examples(self, state: str, reason: str) -> list[str]:
        return [row[0] for row in self._rows("examples", state=state, reason=reason or None, most=_EXAMPLES)]

    def oldest(self) -> float | None:
        """When the longest waiting paid task was submitted, seconds since the epoch."""
        value = self._rows("oldest")[0][0]
        return None if value is None else float(value)

    def oldest_ready(self) -> float | None:
        """Since when the oldest result waits to be downloaded, seconds since the epoch."""
        value = self._rows("oldest_ready")[0][0]
        return None if value is None else float(value)

    def spent(self) -> float | None:
        """What the job has cost at the most; None where a task was sent that nobody knows the price of."""
        spent, unpriced = self._rows("outlay")[0]
        return None if unpriced else float(spent)

    def has_costs(self) -> bool:
        """Whether anything was bought, or may have been, at a price that is known."""
        return bool(self._rows("outlay")[0][0])

    def in_state(self, state: str) -> list[dict[str, Any]]:
        """Every task of a state that few are in: key, name, ref, when it was sent, and its evidence."""
        names = ("key", "name", "ref", "submitted_at", "evidence", "provider", "model")
        return [{name: row[name] for name in names} for row in self._rows("in_state", state=state)]

    def providers(self) -> list[str]:
        """Every provider that this job has ever asked."""
        return [row[0] for row in self._rows("bound")]

    def keys(self) -> dict[str, str]:
        """The state of every task by its key."""
        return {row[0]: row[1] for row in self._rows("keys")}

    def files(self) -> Iterator[SavedFile]:
        """Every file of every finished task, with what the manifest calls it now."""
        for row in self._connection.execute(sql.queries()["files"]):
            saved = SavedFile(*row)
            beside(saved.file)
            yield saved

    def row(self, key: str) -> dict[str, Any] | None:
        """What a task was made from: its place, variables, model and request."""
        for found in self._rows("draft_of", key=key):
            return {**dict(found), "vars": orjson.loads(found["vars"]), "request": orjson.loads(found["request"])}
        return None

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Whatever is asked in the block is told as of one moment, though a run goes on meanwhile."""
        self._connection.execute("begin")
        try:
            yield
        finally:
            self._connection.rollback()

    def results(self) -> Iterator[dict[str, Any]]:
        """Every task in manifest order, as the store holds it, with JSON columns parsed."""
        return self._lines("results")

    def newest(self, most: int) -> Iterator[dict[str, Any]]:
        """The same of so many tasks that changed last, in manifest order."""
        return self._lines("newest", most=most)

    def name(self) -> str:
        """The manifest's name; empty where the job was never run."""
        return str(self._rows("name")[0][0])

    def _lines(self, query: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        for row in self._connection.execute(sql.queries()[query], parameters):
            line = dict(row)
            for column in ("vars", "request", "outputs"):
                line[column] = orjson.loads(line[column])
            for output in line["outputs"]:
                beside(output["file"])
            yield line

    def _rows(self, query: str, **parameters: Any) -> list[Any]:
        return self._connection.execute(sql.queries()[query], parameters).fetchall()


def known_ids(directory: Path) -> set[str]:
    """Every id that a provider ever gave this job, those of earlier generations too."""
    lines = (line for line, _ in journal.read(directory / "journal.jsonl"))
    return {line["remote_id"] for line in lines if line.get("t") == "id" and isinstance(line.get("remote_id"), str)}


@contextmanager
def _upgraded(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """A copy that is up to date, on a temporary file: a look changes nothing, not even of an older version's job."""
    with closing(sqlite3.connect("")) as copy:
        connection.backup(copy)
        copy.row_factory = sqlite3.Row
        sql.guard(copy)
        sql.migrate(copy)
        sql.check_schema(copy)
        yield copy


@contextmanager
def view(directory: Path) -> Iterator[View]:
    """The job in `directory` (its `.runner`); raises NoSuchJob, StateError."""
    path = directory / "state.db"
    if not path.is_file():
        raise NoSuchJob(f"there is no job in {directory.parent}", hint="`runner run MANIFEST` makes one.")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            sql.guard(connection)
            if 0 < sql.version(connection) < len(sql.migrations()):
                with _upgraded(connection) as copy:
                    yield View(copy)
            else:
                sql.check_schema(connection)
                yield View(connection)
    except sql.DAMAGED as error:
        raise sql.explained(error, str(path)) from None
