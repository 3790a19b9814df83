"""The store is the queue: stages claim due rows here, act, and settle them.

One writer: once a later run has begun, claims find nothing, settling is stale, and every other write raises Locked.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Self

from runner.errors import DiskError, StateError
from runner.lifecycle.task import Output, State, Task
from runner.store import ground, opening, recovery, sql
from runner.store import journal as journals
from runner.store.adding import PAGE, Addition, add, forget
from runner.store.journal import of_change
from runner.store.opening import ROOM
from runner.store.outputs import numbered
from runner.store.questions import Questions, execute
from runner.store.rows import as_json, columns, output_from, task_from
from runner.store.writer import Superseded, Writer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable
    from pathlib import Path

    import aiosqlite

    from runner.store.journal import Mark

#: what became of a write: done, the row was no longer as it was, or its remote id belongs to another task
Settled = Literal["done", "stale", "clash"]
#: the next task costs more than is left of the job's `max_cost`
TooDear = Literal["too dear"]
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


class Store(Questions):
    """One job's tasks on disk; `open` it, one writer at a time (the caller holds the job's lock)."""

    def __init__(self, writer: Writer, uuid: str, epoch: int) -> None:
        self._writer, self.uuid, self.epoch = writer, uuid, epoch

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        connect: Callable[[Path], Awaitable[aiosqlite.Connection]] = opening.connect,
        reach: Callable[[str], None] = lambda _: None,
    ) -> Self:
        """The job in `directory`, made if it is not there; raises StateError, DiskError.

        `connect` opens the database, `reach` hears of the named points that a crash campaign strikes at.
        """
        path, journal = directory / "state.db", directory / "journal.jsonl"
        recovery.check_before(path, journal)
        opening.prepare(path)
        try:
            database = await connect(path)
        except sqlite3.Error as error:
            raise sql.explained(error, str(path)) from None
        writer = Writer(database, str(path), reach)
        try:
            await writer.set_up(partial(opening.set_up, log=not ground.is_remote(directory)))
            await writer.set_up(lambda connection: opening.open_journal(connection, writer, journal))
            uuid, epoch = await writer.transact(lambda connection: opening.begin(connection, writer.notes))
            writer.epoch = epoch
            writer.ballast = opening.ballast(directory)
        except BaseException as error:
            await writer.aclose()
            if isinstance(error, sql.DAMAGED):
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

    async def bind(self, provider: str, origin: str, account: str = "", *, same: bool = False) -> None:
        """Tie the provider's tasks to the host and the account they live at; raises StateError where those are others.

        `same` is a person's word that the account is the same under another key.
        """
        known = await self._one("origin", name=provider)
        if known is not None:
            await self.check_origin(provider, origin)
            other = "" not in {known["account"], account} and known["account"] != account
            if other and not same and await self._at_stake(provider):
                raise StateError(
                    f"this job has paid or doubtful {provider} tasks under other credentials",
                    hint="Set the old ones; or, if this is the same account with a new key, add --same-account.",
                )
        await self._write(
            "set_origin", name=provider, origin=origin, account=account or (known["account"] if known else "")
        )

    async def check_origin(self, provider: str, origin: str) -> None:
        """Raise StateError where the provider's tasks of this job live at another host."""
        row = await self._one("origin", name=provider)
        known = row["origin"] if row else origin
        if known != origin and not (_is_loopback(known) and _is_loopback(origin)):
            raise StateError(
                f"this job's {provider} tasks live at {known}, not at {origin}",
                hint="Set the base URL back, or give the other host a directory of its own with --out.",
            )

    async def _at_stake(self, provider: str) -> bool:
        row = await self._one("at_stake", provider=provider)
        return bool(row and row[0])

    async def bound(self) -> list[str]:
        """Every provider that this job has ever asked."""
        return [row["name"] for row in await self._all("bound")]

    async def add(self, drafts: Iterable[Addition], digest: str, now: float, naming: str = "") -> bool:
        """Make the job hold exactly these drafts: new ones are queued, unbought ones that are not among them rest.

        True where the outputs are named in another way (`naming`) than before: what is finished should be renamed.
        """
        job = await self._one("job")
        uuid = job["uuid"] if job else ""
        if job and job["digest"] == digest:
            return False
        was = job["naming"] if job else None
        rename = was not in {None, naming}
        await self._write("set_digest", digest="", tasks="", naming=was)
        await self._writer.change(forget)
        pages, tasks = iter(drafts), 0
        while page := list(islice(pages, PAGE)):
            tasks += sum(int(addition.draft.key, 16) for addition in page)
            await self._writer.change(lambda connection, page=page: add(connection, page, uuid, now, rename=rename))  # type: ignore[misc]
        await self._write("set_digest", digest=digest, tasks=f"{tasks % 2**128:032x}", naming=naming)
        return rename

    async def mark(self, end: int | None = None) -> Mark | None:
        """How far the journal has come, or what stands there at an offset; None: it has not come so far."""
        journal = self._writer.journal
        if journal is None:
            return None

        def work(_: sqlite3.Connection) -> Mark | None:  # in the thread that writes, so that no line is on its way
            at = journal.end if end is None else end
            return journals.mark(journal.path, at) if at <= journal.end else None

        return await self._writer.transact(work)

    async def wake(self, now: float, since: float = 0.0) -> None:
        """Make everything that is paid or in doubt due; patience counts from `since` at the earliest."""
        await self._write("wake", now=now, since=since)

    # claim and settle

    async def claim_queued(
        self,
        provider: str,
        now: float,
        room: int,
        claim: Callable[[Task], Task | None],
        cap: float | None = None,
        held: Collection[int] = (),
    ) -> Task | TooDear | None:
        """The next task to buy, `submitting` on disk as `claim` (an `advance`) made it; None: nothing is due.

        With a `cap` the job's costs, this task's included, stay within it: what has no price does not fit. Those in
        `held` are passed over, and where `claim` gives None nothing is claimed.
        """

        def work(connection: sqlite3.Connection) -> Task | TooDear | None:
            if self._writer.exhausted:
                raise DiskError("the disk is full: what is paid was written with the last reserve", hint=ROOM)
            row = execute(connection, "claim_queued", provider=provider, now=now, room=room, held=holding).fetchone()
            if row is None:
                return None
            before = task_from(row)
            if cap is not None and not _fits(connection, before, cap):
                return "too dear"
            after = claim(before)
            return after if after is not None and self._settle(connection, before, after) == "done" else None

        holding = as_json(list(held))
        try:
            return await self._writer.change(work)
        except Superseded:
            return None
        except sqlite3.IntegrityError as error:  # the row is not as it was written (FD6)
            raise sql.explained(error, "the job's state is damaged") from None

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
        return await self._claim("claim", state, next_look, provider=provider, now=now, limit=limit, held=as_json(held))

    async def claim_group(
        self,
        provider: str,
        state: State,
        soon: float,
        limit: int,
        held: Collection[int],
        operations: Collection[str],
        next_look: Callable[[Task], float | None],
    ) -> list[Task]:
        """Tasks of a state that can share one call, due by `soon`, each postponed to its next look.

        Those without a next look are left as they are.
        """
        parameters = {"provider": provider, "soon": soon, "limit": limit}
        return await self._claim(
            "claim_group", state, next_look, held=as_json(held), operations=as_json(operations), **parameters
        )

    async def _claim(
        self, query: str, state: State, next_look: Callable[[Task], float | None], **parameters: Any
    ) -> list[Task]:
        def work(connection: sqlite3.Connection) -> list[Task]:
            rows = execute(connection, query, state=state, **parameters).fetchall()
            found = [task_from(row, _outputs(connection, row["id"]) if state is State.READY else ()) for row in rows]
            looks = [(task, next_look(task)) for task in found]
            tasks = [replace(task, due_at=due_at) for task, due_at in looks if due_at is not None]
            due = [{"id": task.id, "state": state, "due_at": task.due_at} for task in tasks]
            connection.executemany(sql.queries()["postpone"], due)
            return tasks

        try:
            return await self._writer.change(work)
        except Superseded:
            return []

    async def settle(self, before: Task, after: Task) -> Settled:
        """Write one task back, guarded by what it was; on disk when this returns."""
        try:
            return await self._writer.change(lambda connection: self._settle(connection, before, after))
        except Superseded:
            return "stale"
        except sqlite3.IntegrityError:
            return "clash"

    def _settle(self, connection: sqlite3.Connection, before: Task, after: Task) -> Settled:
        """In a transaction: the row, its outputs, and its line for the journal."""
        line = of_change(before, after)
        if not _written(connection, before, after):
            # a try before this one had come as far as the journal, and the database was given what stands there
            if line is None or line not in self._writer.replayed:
                return "stale"
            if not _written(connection, recovery.apply(before, line), after):
                return "stale"
            line = None
        if after.state is State.QUEUED:
            execute(connection, "rest_gone", id=after.id)
        lets_go = before.remote_id not in {None, after.remote_id}
        if lets_go:
            execute(connection, "put_former", provider=before.provider, remote_id=before.remote_id)
        if lets_go or after.generation != before.generation:
            execute(connection, "drop_outputs", task_id=after.id)
        elif after.outputs and after.outputs != before.outputs:
            known = _outputs(connection, after.id)
            rows = [{"task_id": after.id, "number": n, "url": url} for n, url in numbered(known, after.outputs)]
            connection.executemany(sql.queries()["put_output"], rows)
        if line is not None:
            self._writer.notes.append(line)
        if (label := _LABELS.get((before.state, after.state))) is not None:
            self._writer.labels.append(label)
        return "done"

    async def put_name(self, task_id: int, number: int, file: str) -> None:
        """A file of a finished task has been given another name."""
        await self._write("put_name", task_id=task_id, number=number, file=file)

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


def _written(connection: sqlite3.Connection, before: Task, after: Task) -> bool:
    guard = {"was": before.state, "was_generation": before.generation}
    return execute(connection, "settle", **columns(after), **guard).rowcount == 1


def _outputs(connection: sqlite3.Connection, task_id: int) -> tuple[Output, ...]:
    return tuple(output_from(row) for row in execute(connection, "outputs", task_id=task_id))


def _fits(connection: sqlite3.Connection, task: Task, cap: float) -> bool:
    """Whether the job can pay for one more; asked in the transaction that claims it, so that none slips through."""
    (spent,) = execute(connection, "spent").fetchone()
    return task.cost is not None and round(spent + task.cost, 6) <= cap


def _is_loopback(origin: str) -> bool:
    return origin.startswith(("http://127.", "http://localhost", "http://[::1]"))
