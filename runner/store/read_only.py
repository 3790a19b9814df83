"""Read-only queries of a job, with or without a run beside them; needs only SQLite."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import orjson

from runner.errors import JobNotFoundError
from runner.store import database
from runner.store.journal import read_lines
from runner.store.task_rows import check_output_name
from runner.tasks.models import SUSPECTED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

#: tasks that are read at once for the account's memory
_PURCHASES_PAGE = 5_000
#: tasks that are read at once for the results
_RESULTS_PAGE = 500
#: maximum number of example tasks of each error group
_MAX_EXAMPLES = 3
#: codes of refusals that are counted, the most frequent
_MAX_CODES = 100


class SavedFile(NamedTuple):
    """An output file of a done task, and the task's name in the current manifest."""

    task_id: int
    key: str
    name: str
    number: int
    file: str
    #: number of outputs of its task
    output_count: int


@contextmanager
def open_read_only(directory: Path) -> Iterator[ReadOnlyQueries]:
    """Open the database in `directory` (a job's `.runner`) for reading.

    Raises JobNotFoundError, StateError, DiskError or JobLockedError.
    """
    path = directory / "state.db"
    if not path.is_file():
        raise JobNotFoundError(f"there is no job in {directory.parent}", hint="`runner run MANIFEST` makes one.")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            database.harden(connection)
            if 0 < database.schema_version(connection) < len(database.migrations()):
                with _migrated_copy(connection) as copy:
                    yield ReadOnlyQueries(copy)
            else:
                database.check_schema(connection)
                yield ReadOnlyQueries(connection)
    except database.DATABASE_ERRORS as error:
        raise database.to_runner_error(error, str(path)) from None


class ReadOnlyQueries:
    """Queries that read a job's database, on a connection that need not be able to write."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def counts(self) -> dict[str, int]:
        """Return the number of tasks in each state, without unbought tasks removed from the manifest."""
        counts = dict(self._fetch_all("counts"))
        counts["queued"] = counts.get("queued", 0) - self.removed_unsent_count()
        return {state: count for state, count in counts.items() if count}

    def counts_by_provider(self) -> dict[str, dict[str, int]]:
        """Return the number of tasks by provider and state, without unbought tasks removed from the manifest."""
        counts: dict[str, dict[str, int]] = {}
        for provider, state, count in self._fetch_all("counts_by_provider"):
            counts.setdefault(provider, {})[state] = count
        return counts

    def latest_files(self, limit: int) -> list[dict[str, Any]]:
        """Return the files saved last, the newest first, as dictionaries.

        Each has `key`, `file`, `media_type` and `finished_at` (seconds since the epoch).
        """
        return [dict(row) for row in self._fetch_all("latest_files", limit=limit)]

    def removed_unsent_count(self) -> int:
        """Return the number of unbought tasks that were removed from the manifest."""
        return int(self._fetch_value("removed_unsent"))

    def removed_sent_count(self) -> int:
        """Return the number of bought tasks that were removed from the manifest."""
        return int(self._fetch_value("removed_sent"))

    def removed_failed_count(self) -> int:
        """Return the number of failed tasks that were removed from the manifest."""
        return int(self._fetch_value("removed_failed"))

    def error_groups(self) -> list[dict[str, Any]]:
        """Return why tasks failed, were stranded, are held or are incomplete, grouped by state and reason.

        Each group has `state`, `reason`, `message` (an example), `count`, `paid` (how many cost something), `cost`
        (their total), `unpriced` (how many were accepted at an unknown price) and `tasks` (the names of a few). Failed
        tasks that were removed from the manifest are left out.
        """
        names = ("state", "reason", "message", "count", "paid", "cost", "unpriced")
        groups = [dict(zip(names, row, strict=True)) for row in self._fetch_all("error_groups")]
        for group in groups:
            examples = {"state": group["state"], "reason": group["reason"] or None, "limit": _MAX_EXAMPLES}
            group["tasks"] = [row[0] for row in self._fetch_all("example_names", **examples)]
        return groups

    def waiting_files(self) -> list[dict[str, Any]]:
        """Return why files that are paid for have not come yet, the most frequent reason first.

        Each has `reason`, `message` (an example) and `count`.
        """
        return [dict(row) for row in self._fetch_all("waiting_files")]

    def unlisted_states(self) -> list[dict[str, Any]]:
        """Return the state words of running tasks that their specs do not list, each with `word` and `count`."""
        return [dict(row) for row in self._fetch_all("unlisted_states")]

    def oldest_submitted_at(self) -> float | None:
        """Return when the oldest task that is running or ready was submitted, in seconds since the epoch."""
        value = self._fetch_value("oldest_submitted")
        return None if value is None else float(value)

    def oldest_ready_at(self) -> float | None:
        """Return since when the oldest result waits to be downloaded, in seconds since the epoch."""
        value = self._fetch_value("oldest_ready")
        return None if value is None else float(value)

    def spent(self) -> float | None:
        """Return the most that the job can have cost, or None if a task was sent at an unknown price."""
        spent, unpriced = self._fetch_all("costs")[0]
        return None if unpriced else float(spent)

    def has_costs(self) -> bool:
        """Return whether anything was bought, or may have been, at a known price."""
        return bool(self._fetch_value("costs"))

    def in_state(self, state: str) -> list[dict[str, Any]]:
        """Return every task of a state, which must be one that few tasks are in.

        Each has `key`, `name`, `ref`, `submitted_at`, `evidence`, `provider` and `model`.
        """
        names = ("key", "name", "ref", "submitted_at", "evidence", "provider", "model")
        return [{name: row[name] for name in names} for row in self._fetch_all("in_state", state=state)]

    def suspects(self, state: str) -> dict[str, int]:
        """Return how many tasks of a state were refused and are not known to have cost nothing, by their code."""
        rows = self._fetch_all("suspects", state=state, prefix=SUSPECTED, limit=_MAX_CODES)
        return {reason.removeprefix(SUSPECTED): count for reason, count in rows}

    def operations(self) -> list[tuple[str, str, str]]:
        """Return provider, operation and model of all tasks, each once."""
        return [(row[0], row[1], row[2]) for row in self._fetch_all("operations")]

    def bound_providers(self) -> list[str]:
        """Return every provider that this job has ever used."""
        return [row[0] for row in self._fetch_all("bound_providers")]

    def identity(self) -> tuple[str, int]:
        """Return the job's identity, and how many bytes of its journal the database knows."""
        row = self._fetch_all("job")[0]
        return str(row["uuid"]), int(row["journal"])

    def purchases(self, provider: str) -> Iterator[list[dict[str, Any]]]:
        """Yield every task of a provider that was ever bought, in pages, as the account remembers it."""
        after, more = 0, {"provider": provider, "limit": _PURCHASES_PAGE}
        while rows := self._fetch_all("remembered", after=after, **more):
            after = rows[-1]["id"]
            yield [dict(row) for row in rows]

    def purchases_of(self, provider: str, refs: Sequence[str]) -> list[dict[str, Any]]:
        """Return the tasks of a provider with these references, as the account remembers them."""
        rows = self._fetch_all("remembered_of", provider=provider, refs=orjson.dumps(refs).decode())
        return [dict(row) for row in rows]

    def states_by_key(self, *, buy_again: bool = False) -> dict[str, str]:
        """Return the state of every task by its key: of linked tasks with `buy_again` as if they were to be bought."""
        return {row[0]: row[1] for row in self._fetch_all("states_by_key", buy_again=buy_again)}

    def saved_files(self) -> Iterator[SavedFile]:
        """Yield every file of every done task.

        Raises StateError if a file name leads out of the job directory.
        """
        for row in database.execute(self._connection, "saved_files"):
            saved = SavedFile(*row)
            check_output_name(saved.file)
            yield saved

    def get_draft(self, key: str) -> dict[str, Any] | None:
        """Return the draft of a task (position, variables, model, request ...), or None if there is no such key."""
        for row in self._fetch_all("get_draft", key=key):
            return {**dict(row), "vars": orjson.loads(row["vars"]), "request": orjson.loads(row["request"])}
        return None

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Answer all queries in the block from one snapshot, although a run may go on meanwhile."""
        self._connection.execute("begin")
        try:
            yield
        finally:
            self._connection.rollback()

    def results(self) -> Iterator[dict[str, Any]]:
        """Yield every task in manifest order as stored, with JSON columns parsed; tasks that left it come last.

        All are of one snapshot. The first comes at once, however many there are. Raises StateError.
        """
        with nullcontext() if self._connection.in_transaction else self.snapshot():
            for page in self.result_pages():
                yield from page

    def result_pages(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the tasks as `results` does, but in pages, each of a snapshot of its own unless there is one.

        Raises StateError.
        """
        position, after = 0, 0
        while page := list(self._result_rows("results_page", position=position, id=after, limit=_RESULTS_PAGE)):
            yield page
            position, after = page[-1]["position"], page[-1]["id"]
        after = 0
        while page := list(self._result_rows("removed_page", id=after, limit=_RESULTS_PAGE)):
            yield page
            after = page[-1]["id"]

    def task_values(self, states: Collection[str] = ()) -> Iterator[dict[str, Any]]:
        """Yield `vars` and `request` of every task, or of those in some states, in the order of `results`."""
        for query in ("manifest_values", "removed_values"):
            for variables, request, state in database.execute(self._connection, query):
                if not states or state in states:
                    yield {"vars": orjson.loads(variables), "request": orjson.loads(request)}

    def result_ids(self, state: str | None = None) -> list[int]:
        """Return the id of every task in manifest order, or only of those in a state."""
        return [row[0] for row in self._fetch_all("result_ids", state=state)]

    def taken_changes(self, limit: int) -> list[int]:
        """Return the ids of up to `limit` tasks whose changes the results that are written now are to show."""
        return [row[0] for row in self._fetch_all("taken_changes", limit=limit)]

    def results_of(self, ids: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Yield the tasks with these ids in manifest order, as `results` does."""
        return self._result_rows("results_of", ids=orjson.dumps(ids).decode())

    def keys_at(self, positions: Sequence[int]) -> dict[int, tuple[str, dict[str, Any]]]:
        """Return key and variables of the tasks at some positions in the manifest, by position."""
        rows = self._fetch_all("keys_at", positions=orjson.dumps(positions).decode())
        return {position: (key, orjson.loads(variables)) for position, key, variables in rows}

    def outputs_of_keys(self, keys: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """Return the outputs that have a file, of the tasks with some keys, in order. Raises StateError."""
        found: dict[str, list[dict[str, Any]]] = {}
        for key, *values in self._fetch_all("outputs_of_keys", keys=orjson.dumps(keys).decode()):
            output = dict(zip(("number", "file", "sha256"), values, strict=True))
            check_output_name(output["file"])
            found.setdefault(key, []).append(output)
        return found

    def newest_results(self, limit: int) -> Iterator[dict[str, Any]]:
        """Yield the newest tasks, up to `limit`, in manifest order, as `results` does.

        Those that ended last and those at work are newer than those to be bought.
        """
        return self._result_rows("newest_results", limit=limit)

    def name(self) -> str:
        """Return the manifest's name, empty if the job was never run."""
        return str(self._fetch_value("name"))

    def _result_rows(self, query: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        cursor = database.execute(self._connection, query, **parameters)
        names = [column[0] for column in cursor.description]
        for row in cursor:
            line = dict(zip(names, row, strict=True))  # four times as fast as dict(row), which searches for each name
            for column in ("vars", "request", "outputs"):
                line[column] = orjson.loads(line[column])
            for output in line["outputs"]:
                check_output_name(output["file"])
            yield line

    def _fetch_value(self, query: str) -> Any:
        """Return the first column of the only row."""
        return self._fetch_all(query)[0][0]

    def _fetch_all(self, query: str, **parameters: Any) -> list[Any]:
        return database.execute(self._connection, query, **parameters).fetchall()


def known_remote_ids(directory: Path) -> set[str]:
    """Return every remote id that a provider ever gave this job, with those of earlier generations."""
    lines = (line for line, _ in read_lines(directory / "journal.jsonl"))
    named = (line["remote_id"] for line in lines if line.get("t") in {"id", "former"} and "remote_id" in line)
    return {remote_id for remote_id in named if isinstance(remote_id, str)}


@contextmanager
def _migrated_copy(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Open a migrated copy in a temporary file.

    A reader must change nothing, not even the database of an older version.
    """
    with closing(sqlite3.connect("")) as copy:
        connection.backup(copy)
        copy.row_factory = sqlite3.Row
        database.harden(copy)
        database.migrate(copy)
        database.check_schema(copy)
        yield copy
