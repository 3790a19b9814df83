"""The store is the queue: stages claim due rows here, act, and settle them. One writer, guarded by the epoch."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Self

import aiosqlite
import orjson

from runner.errors import DiskError, StateError
from runner.lifecycle.task import Output, State, Task, reference
from runner.store import recovery, sql
from runner.store.journal import of_change
from runner.store.rows import columns, output_from, task_from
from runner.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from runner.lifecycle.task import Draft
    from runner.store.journal import Line

#: what became of a write: done, the row was no longer as it was, or its remote id belongs to another task
Settled = Literal["done", "stale", "clash"]
#: drafts that are added in one transaction
PAGE = 10_000
_BALLAST = 512 * 1024
#: bytes up to which a database is checked whole at the start
_CHECKED = 64 * 2**20
_ROOM = "Make room, then run the same command again."


@dataclass(frozen=True, slots=True)
class Addition:
    """A draft with what only the job can add to it."""

    draft: Draft
    fingerprint: str


#: the changes that a crash campaign strikes at, in a word
_LABELS = {
    (State.QUEUED, State.SUBMITTING): "intent",
    (State.SUBMITTING, State.RUNNING): "id",
    (State.SUBMITTING, State.IN_DOUBT): "doubt",
    (State.SUBMITTING, State.HELD): "doubt",
    (State.IN_DOUBT, State.RUNNING): "adopted",
    (State.IN_DOUBT, State.QUEUED): "absent",
    (State.RUNNING, State.READY): "ready",
    (State.READY, State.DONE): "done",
}


async def _connect(path: Path) -> aiosqlite.Connection:
    return await aiosqlite.connect(path, isolation_level=None, cached_statements=256)


class Store:
    """One job's tasks on disk; `open` it, one writer at a time (the caller holds the job's lock)."""

    def __init__(self, writer: Writer, uuid: str, epoch: int) -> None:
        self._writer, self.uuid, self.epoch = writer, uuid, epoch

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        connect: Callable[[Path], Awaitable[aiosqlite.Connection]] = _connect,
        reach: Callable[[str], None] = lambda _: None,
    ) -> Self:
        """The job in `directory`, made if it is not there; raises StateError, DiskError.

        `connect` opens the database, `reach` hears of the named points that a crash campaign strikes at.
        """
        path, journal = directory / "state.db", directory / "journal.jsonl"
        recovery.check_before(path, journal)
        prepare(path)
        try:
            database = await connect(path)
        except sqlite3.Error as error:
            raise sql.explained(error, str(path)) from None
        writer = Writer(database, str(path), reach)
        try:
            await writer.set_up(set_up)
            await writer.set_up(lambda connection: _open_journal(connection, writer, journal))
            uuid, epoch = await writer.transact(lambda connection: _begin(connection, writer.notes))
            writer.ballast = _ballast(directory)
        except BaseException as error:
            await writer.aclose()
            if isinstance(error, sqlite3.Error):
                raise sql.explained(error, str(path)) from None
            raise
        return cls(writer, uuid, epoch)

    async def aclose(self) -> None:
        """Finish what waits, then close."""
        await self._writer.aclose()

    # what a run begins with

    async def name(self, name: str) -> None:
        """Give the job its manifest's name; raises StateError where the directory belongs to another job."""
        row = await self._one("name")
        known = row["name"] if row else ""
        if known not in {"", name}:
            raise StateError(
                f"this directory belongs to the job {known!r}, not to {name!r}",
                hint="Give each manifest an output.dir of its own, or set the name back.",
            )
        await self._write("set_name", name=name)

    async def bind(self, provider: str, origin: str) -> None:
        """Tie the provider's tasks to the host they live at; raises StateError where that is another one."""
        known = await self._one("origin", name=provider)
        if known is not None and known[0] != origin and not (_is_loopback(known[0]) and _is_loopback(origin)):
            raise StateError(
                f"this job's {provider} tasks live at {known[0]}, not at {origin}",
                hint="Set the base URL back, or give the other host a directory of its own with --out.",
            )
        await self._write("set_origin", name=provider, origin=origin)

    async def add(self, drafts: Iterable[Addition], digest: str, now: float) -> None:
        """Make the job hold exactly these drafts: new ones are queued, unbought ones that are not among them rest."""
        job = await self._one("job")
        uuid = job["uuid"] if job else ""
        if job and job["digest"] == digest:
            return
        await self._write("set_digest", digest="")
        await self._writer.transact(_forget)
        pages = iter(drafts)
        while page := list(islice(pages, PAGE)):
            await self._writer.transact(lambda connection, page=page: add(connection, page, uuid, now))  # type: ignore[misc]
        await self._write("set_digest", digest=digest)

    async def wake(self, now: float) -> None:
        """Make everything that is paid or in doubt due."""
        await self._write("wake", now=now)

    # claim and settle

    async def claim_queued(self, provider: str, now: float, room: int, claim: Callable[[Task], Task]) -> Task | None:
        """The next task to buy, `submitting` on disk as `claim` (an `advance`) made it; None: nothing is due."""

        def work(connection: sqlite3.Connection) -> Task | None:
            if self._writer.exhausted:
                raise DiskError("the disk is full: what is paid was written with the last reserve", hint=_ROOM)
            row = _execute(connection, "claim_queued", provider=provider, now=now, room=room).fetchone()
            if row is None:
                return None
            before = task_from(row)
            after = claim(before)
            return after if self._settle(connection, before, after) == "done" else None

        return await self._writer.transact(work)

    async def claim(
        self,
        provider: str,
        state: State,
        now: float,
        limit: int,
        held: Collection[int],
        next_look: Callable[[Task], float],
    ) -> list[Task]:
        """Due tasks of a state with their outputs, each postponed to its next look; not those in `held`."""
        return await self._claim("claim", state, next_look, provider=provider, now=now, limit=limit, held=_json(held))

    async def claim_group(
        self,
        provider: str,
        state: State,
        soon: float,
        limit: int,
        held: Collection[int],
        operations: Collection[str],
        next_look: Callable[[Task], float],
    ) -> list[Task]:
        """Tasks of a state that can share one call, due by `soon`, each postponed to its next look."""
        parameters = {"provider": provider, "soon": soon, "limit": limit}
        return await self._claim(
            "claim_group", state, next_look, held=_json(held), operations=_json(operations), **parameters
        )

    async def _claim(
        self, query: str, state: State, next_look: Callable[[Task], float], **parameters: Any
    ) -> list[Task]:
        def work(connection: sqlite3.Connection) -> list[Task]:
            rows = _execute(connection, query, state=state, **parameters).fetchall()
            tasks = [task_from(row, _outputs(connection, row["id"]) if state is State.READY else ()) for row in rows]
            tasks = [replace(task, due_at=next_look(task)) for task in tasks]
            looks = [{"id": task.id, "state": state, "due_at": task.due_at} for task in tasks]
            connection.executemany(sql.queries()["postpone"], looks)
            return tasks

        return await self._writer.transact(work)

    async def settle(self, before: Task, after: Task) -> Settled:
        """Write one task back, guarded by what it was; on disk when this returns."""
        try:
            return await self._writer.transact(lambda connection: self._settle(connection, before, after))
        except sqlite3.IntegrityError:
            return "clash"

    def _settle(self, connection: sqlite3.Connection, before: Task, after: Task) -> Settled:
        """In a transaction: the row, its outputs, and its line for the journal."""
        guard = {"was": before.state, "was_generation": before.generation, "epoch": self.epoch}
        if _execute(connection, "settle", **columns(after), **guard).rowcount != 1:
            return "stale"
        if after.state is State.QUEUED:
            _execute(connection, "rest_gone", id=after.id)
        if before.remote_id is not None and after.remote_id is None:
            _execute(connection, "put_former", provider=before.provider, remote_id=before.remote_id)
        if after.generation != before.generation:
            _execute(connection, "drop_outputs", task_id=after.id)
        elif after.outputs and after.outputs != before.outputs:
            rows = [{"task_id": after.id, "number": output.number, "url": output.url} for output in after.outputs]
            connection.executemany(sql.queries()["put_output"], rows)
        line = of_change(before, after)
        if line is not None:
            self._writer.notes.append(line)
        if (label := _LABELS.get((before.state, after.state))) is not None:
            self._writer.labels.append(label)
        return "done"

    async def record(self, task: Task, output: Output) -> None:
        """Put on disk what a file will be, before its name exists."""
        await self._write(
            "record_file",
            task_id=task.id,
            number=output.number,
            file=output.file,
            bytes=output.bytes,
            sha256=output.sha256,
            media_type=output.media_type,
        )

    # questions

    async def in_state(self, state: State) -> list[Task]:
        """Every task of a state that few are in."""
        return [task_from(row) for row in await self._all("in_state", state=state)]

    async def ever_sent(self, provider: str) -> list[Task]:
        """Every task of a provider that a request was ever sent for."""
        return [task_from(row) for row in await self._all("ever_sent", provider=provider)]

    async def by_key(self, key: str) -> list[Task]:
        """Up to three tasks whose key begins so."""
        return [task_from(row) for row in await self._all("by_key", key=key)]

    async def next_due(self, provider: str, state: State, operations: Collection[str] | None = None) -> float | None:
        """When the next task of that state (and of these operations) is due; None: there is none."""
        if operations is None:
            row = await self._one("next_due", provider=provider, state=state)
        else:
            row = await self._one("next_due_group", provider=provider, state=state, operations=_json(operations))
        return None if row is None else row[0]

    async def providers(self, *, again: bool = False) -> set[str]:
        """Providers with tasks that this run has work with; `again` counts those at rest among them, but the held."""
        return {row[0] for row in await self._all("providers", again=again)}

    async def counts(self) -> dict[str, int]:
        """How many tasks are in each state; states without any are left out."""
        return {row[0]: row[1] for row in await self._all("counts")}

    async def gone(self) -> int:
        """How many unbought tasks left the manifest."""
        row = await self._one("gone")
        return row[0] if row else 0

    async def busy(self, provider: str, states: Collection[State]) -> bool:
        """Whether a task of these states is still to be worked on, or any on the wire; one look, since tasks move."""
        row = await self._one("busy", provider=provider, states=_json(list(states)))
        return bool(row and row[0])

    async def partial(self) -> int:
        """How many finished tasks have fewer outputs than were ordered."""
        row = await self._one("partial")
        return row[0] if row else 0

    async def slots_taken(self, provider: str) -> int:
        """How much of the account's window this job takes."""
        row = await self._one("slots_taken", provider=provider)
        return row[0] if row else 0

    async def claimed(self, provider: str, remote_ids: Sequence[str]) -> set[str]:
        """Those of the remote ids that belong to a task already."""
        return {row[0] for row in await self._all("claimed", provider=provider, remote_ids=_json(remote_ids))}

    async def twins_sent(self, fingerprint: str) -> list[tuple[str, float]]:
        """Boot and seconds of the doubtful sends of a fingerprint."""
        return [(row[0], row[1]) for row in await self._all("twins_sent", fingerprint=fingerprint)]

    async def twin_submitting(self, fingerprint: str) -> bool:
        """Whether a twin is on the wire right now."""
        row = await self._one("twin_submitting", fingerprint=fingerprint)
        return bool(row and row[0])

    async def put_echoes(self, provider: str, model: str, fields: Mapping[str, bool]) -> None:
        """Learn which fields of a model the list gives back verbatim."""
        rows = [
            {"provider": provider, "model": model, "field": name, "verbatim": int(same)}
            for name, same in fields.items()
        ]
        await self._writer.transact(lambda connection: connection.executemany(sql.queries()["put_echo"], rows) and None)

    async def echoes(self, provider: str, model: str) -> dict[str, bool]:
        """What is known of a model's echo: field to verbatim."""
        return {row[0]: bool(row[1]) for row in await self._all("echoes", provider=provider, model=model)}

    async def _write(self, query: str, **parameters: Any) -> None:
        await self._writer.transact(lambda connection: _execute(connection, query, **parameters) and None)

    async def _one(self, query: str, **parameters: Any) -> sqlite3.Row | None:
        return await self._writer.transact(lambda connection: _execute(connection, query, **parameters).fetchone())

    async def _all(self, query: str, **parameters: Any) -> list[sqlite3.Row]:
        return await self._writer.transact(lambda connection: _execute(connection, query, **parameters).fetchall())


def prepare(path: Path) -> None:
    """The directory 0700 and the file 0600 before SQLite sees them."""
    directory = path.parent
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        raise DiskError(f"{directory}: {error.strerror}", hint="Mend the permissions, or choose --out.") from None
    if path.is_symlink() or not path.is_file():
        raise DiskError(f"{path} is not a file", hint="Move it away, or choose --out.")


def set_up(connection: sqlite3.Connection) -> None:
    """A connection as the one writer has it, on a database that is up to date."""
    connection.row_factory = sqlite3.Row
    connection.execute("pragma busy_timeout = 30000")
    connection.execute("pragma trusted_schema = off")
    sql.version(connection)
    (mode,) = connection.execute("pragma journal_mode = wal").fetchone()
    if mode != "wal":
        raise StateError(f"the file system allows no write-ahead log ({mode})", hint="Put the job on a local disk.")
    connection.execute("pragma synchronous = full")
    _check(connection)
    connection.execute("pragma foreign_keys = on")
    sql.migrate(connection)


def _check(connection: sqlite3.Connection) -> None:
    """Damage is found before anything is believed; a very large database is checked by what is read of it."""
    (pages,) = connection.execute("pragma page_count").fetchone()
    (size,) = connection.execute("pragma page_size").fetchone()
    if pages * size <= _CHECKED:
        (verdict,) = connection.execute("pragma quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(str(verdict))


def _open_journal(connection: sqlite3.Connection, writer: Writer, path: Path) -> None:
    writer.journal = recovery.open_journal(connection, path)


def _begin(connection: sqlite3.Connection, notes: list[Line]) -> tuple[str, int]:
    epoch = _execute(connection, "raise_epoch").fetchone()["epoch"]
    uuid = _execute(connection, "job").fetchone()["uuid"]
    notes.append({"t": "epoch", "uuid": uuid, "epoch": epoch})
    return uuid, epoch


def _ballast(directory: Path) -> Path:
    """Room that is given back when the disk is full, so that an id in hand can still be written."""
    path = directory / "ballast"
    try:
        if not path.exists() or path.stat().st_size < _BALLAST:
            with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o600), "wb") as file:
                file.write(bytes(_BALLAST))
                os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise DiskError(f"{path}: {error.strerror}", hint=_ROOM) from None
    return path


def _execute(connection: sqlite3.Connection, query: str, **parameters: Any) -> sqlite3.Cursor:
    return connection.execute(sql.queries()[query], parameters)


def _outputs(connection: sqlite3.Connection, task_id: int) -> tuple[Output, ...]:
    return tuple(output_from(row) for row in _execute(connection, "outputs", task_id=task_id))


def _forget(connection: sqlite3.Connection) -> None:
    _execute(connection, "rest_queued")
    _execute(connection, "forget_positions")


def add(connection: sqlite3.Connection, page: Sequence[Addition], uuid: str, now: float) -> None:
    """In a transaction: a row in each table for each draft that has none."""
    connection.executemany(sql.queries()["add_task"], (_hot(addition, uuid) for addition in page))
    connection.executemany(sql.queries()["add_draft"], _cold(page, now))


def _hot(addition: Addition, uuid: str) -> dict[str, Any]:
    draft = addition.draft
    return {
        "key": draft.key,
        "provider": draft.provider,
        "operation": draft.operation,
        "model": draft.model,
        "ref": reference(uuid, draft.key, 1),
        "fingerprint": addition.fingerprint,
        "slots": draft.slots,
    }


def _cold(page: Sequence[Addition], now: float) -> Iterator[dict[str, Any]]:
    for addition in page:
        draft = addition.draft
        yield {
            "key": draft.key,
            "position": draft.index or None,
            "repeat": draft.repeat,
            "vars": _json(draft.vars),
            "request": _json(draft.request),
            "name": draft.name,
            "now": now,
        }


def _json(value: Any) -> str:
    return orjson.dumps(list(value) if isinstance(value, set | frozenset) else value, default=str).decode()


def _is_loopback(origin: str) -> bool:
    return origin.startswith(("http://127.", "http://localhost", "http://[::1]"))
