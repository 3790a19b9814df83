"""The store is the queue: stages claim due rows, act, and settle them.

One run writes at a time. Once a later run has begun, claims of the earlier one return nothing, its settling is stale,
and every other write raises SupersededError.
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

#: result of a write: done, the row had changed meanwhile, or the remote id belongs to another task
Settled = Literal["done", "stale", "clash"]
#: result of a claim: the next task costs more than is left of the job's `max_cost`
TooDear = Literal["too dear"]
#: failpoint names of the changes at which crash tests stop the process
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
    """Tasks of one job on disk.

    Made by `open`. The caller holds the job's lock, so that there is one writer. Times are seconds since the epoch.
    Methods raise DiskError, JobLockedError and StateError.
    """

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
        """Open the job in `directory`, or make it if there is none.

        `connect` opens the database. `failpoint` is called with the name of each point at which crash tests stop the
        process. Raises StateError and DiskError.
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
        """Finish the waiting writes, then close the database and the journal."""
        await self._writer.aclose()

    # start of a run

    async def name(self, name: str) -> None:
        """Store the manifest's name.

        Raises StateError if the directory belongs to a job of another name.
        """
        row = await self._one("name")
        known = row["name"] if row else ""
        if known not in {"", name}:
            raise StateError(
                f"this directory belongs to the job {known!r}, not to {name!r}",
                hint="Give each manifest an output.dir of its own, or set the name back.",
            )
        await self._write("set_name", name=name)

    async def bind(self, provider: str, origin: str, account: str = "", *, same: bool = False) -> None:
        """Bind the provider's tasks to the host and the account that hold them.

        With `same_account` the user asserts that the account is the same under another key. Raises StateError if the
        tasks are bound to another host, or if paid or doubtful ones are bound to another account.
        """
        known = await self._one("origin", name=provider)
        if known is not None:
            await self.check_origin(provider, origin)
            differs = "" not in {known["account"], account} and known["account"] != account
            if differs and not same and await self._at_stake(provider):
                raise StateError(
                    f"this job has paid or doubtful {provider} tasks under other credentials",
                    hint="Set the old ones; or, if this is the same account with a new key, add --same-account.",
                )
        await self._write(
            "set_origin", name=provider, origin=origin, account=account or (known["account"] if known else "")
        )

    async def check_origin(self, provider: str, origin: str) -> None:
        """Raise StateError if the provider's tasks of this job are bound to another host."""
        row = await self._one("origin", name=provider)
        known = row["origin"] if row else origin
        if known != origin and not (_is_loopback(known) and _is_loopback(origin)):
            raise StateError(
                f"this job's {provider} tasks live at {known}, not at {origin}",
                hint="Set the base URL back, or give the other host a directory of its own with --out.",
            )

    async def _at_stake(self, provider: str) -> bool:
        row = await self._one("has_unfinished", provider=provider)
        return bool(row and row[0])

    async def bound(self) -> list[str]:
        """Return every provider that this job has ever used."""
        return [row["name"] for row in await self._all("bound_providers")]

    async def add(self, drafts: Iterable[Addition], digest: str, now: float, naming: str = "") -> bool:
        """Make the job hold exactly these drafts.

        New drafts are queued. Unbought tasks that are not among the drafts are no longer due. No draft is read if
        `digest` is that of the last drafts. Return True if outputs are named in another way (`naming`) than before, so
        that existing files should be renamed.
        """
        job = await self._one("job")
        uuid = job["uuid"] if job else ""
        if job and job["digest"] == digest:
            return False
        previous = job["naming"] if job else None
        rename = previous not in {None, naming}
        await self._write("set_digest", digest="", tasks="", naming=previous)
        await self._writer.change(forget)
        remaining, key_sum = iter(drafts), 0
        while page := list(islice(remaining, PAGE)):
            key_sum += sum(int(addition.draft.key, 16) for addition in page)
            await self._writer.change(lambda connection, page=page: add(connection, page, uuid, now, rename=rename))  # type: ignore[misc]
        await self._write("set_digest", digest=digest, tasks=f"{key_sum % 2**128:032x}", naming=naming)
        return rename

    async def mark(self, end: int | None = None) -> Mark | None:
        """Return the journal's mark at an offset (default: its end), or None if the journal is shorter."""
        journal = self._writer.journal
        if journal is None:
            return None

        def work(_: sqlite3.Connection) -> Mark | None:  # in the writing thread, so that no line is half written
            offset = journal.end if end is None else end
            return journals.mark(journal.path, offset) if offset <= journal.end else None

        return await self._writer.transact(work)

    async def wake(self, now: float, since: float = 0.0) -> None:
        """Make all paid or doubtful tasks due at `now`; their deadlines count from `since` at the earliest."""
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
        """Claim the next task to buy: it is `submitting` on disk when this returns.

        Return None if nothing is due, and "too dear" if the task's price is unknown or exceeds what is left of `cap`.
        `claim` returns the task after the transition, or None to claim nothing. A task is due only if it fits into
        `free_slots`. Tasks whose ids are in `exclude` are skipped. Raises DiskError if the ballast was used.
        """

        def work(connection: sqlite3.Connection) -> Task | TooDear | None:
            if self._writer.exhausted:
                raise DiskError("the disk is full: what is paid was written with the last reserve", hint=ROOM)
            row = execute(
                connection, "claim_queued", provider=provider, now=now, free_slots=room, exclude=excluded
            ).fetchone()
            if row is None:
                return None
            before = task_from(row)
            if cap is not None and not _fits(connection, before, cap):
                return "too dear"
            after = claim(before)
            return after if after is not None and self._settle(connection, before, after) == "done" else None

        excluded = as_json(list(held))
        try:
            return await self._writer.change(work)
        except Superseded:
            return None
        except sqlite3.IntegrityError as error:  # the row was changed by something else
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
        """Claim due tasks of a state with their outputs, up to `limit`, except those whose ids are in `exclude`.

        Each is postponed to the time that `next_due_at` returns for it.
        """
        return await self._claim(
            "claim", state, next_look, provider=provider, now=now, limit=limit, exclude=as_json(held)
        )

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
        """Claim tasks of a state that can share one call, due by `soon`, up to `limit`.

        Each is postponed to the time that `next_due_at` returns for it. Tasks for which it returns None stay as they
        are, and are not claimed. Tasks whose ids are in `exclude` are skipped.
        """
        parameters = {"provider": provider, "soon": soon, "limit": limit}
        return await self._claim(
            "claim_group", state, next_look, exclude=as_json(held), operations=as_json(operations), **parameters
        )

    async def _claim(
        self, query: str, state: State, next_look: Callable[[Task], float | None], **parameters: Any
    ) -> list[Task]:
        def work(connection: sqlite3.Connection) -> list[Task]:
            rows = execute(connection, query, state=state, **parameters).fetchall()
            found = [task_from(row, _outputs(connection, row["id"]) if state is State.READY else ()) for row in rows]
            times = [(task, next_look(task)) for task in found]
            tasks = [replace(task, due_at=due_at) for task, due_at in times if due_at is not None]
            postponed = [{"id": task.id, "state": state, "due_at": task.due_at} for task in tasks]
            connection.executemany(sql.queries()["postpone"], postponed)
            return tasks

        try:
            return await self._writer.change(work)
        except Superseded:
            return []

    async def settle(self, before: Task, after: Task) -> Settled:
        """Write a task after a transition, if its row is still in the state and generation of `before`.

        The task is on disk when this returns. Return "stale" if the row has changed, and "clash" if the remote id
        belongs to another task.
        """
        try:
            return await self._writer.change(lambda connection: self._settle(connection, before, after))
        except Superseded:
            return "stale"
        except sqlite3.IntegrityError:
            return "clash"

    def _settle(self, connection: sqlite3.Connection, before: Task, after: Task) -> Settled:
        """Write the row and its outputs, and note its line for the journal; must be called in a transaction."""
        line = of_change(before, after)
        if not _written(connection, before, after):
            # an earlier try may have reached the journal but not the database, which was then updated from the journal
            if line is None or line not in self._writer.replayed:
                return "stale"
            if not _written(connection, recovery.apply(before, line), after):
                return "stale"
            line = None
        if after.state is State.QUEUED:
            execute(connection, "unschedule_removed", id=after.id)
        drops_id = before.remote_id not in {None, after.remote_id}
        if drops_id:
            execute(connection, "keep_former_id", provider=before.provider, remote_id=before.remote_id)
        if drops_id or after.generation != before.generation:
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
        """Store the new name of a file of a done task."""
        await self._write("rename_output", task_id=task_id, number=number, file=file)

    async def record(self, task: Task, output: Output) -> None:
        """Store name, size and checksum of a file before the file has its name."""
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
    guard = {"expected_state": before.state, "expected_generation": before.generation}
    return execute(connection, "settle", **columns(after), **guard).rowcount == 1


def _outputs(connection: sqlite3.Connection, task_id: int) -> tuple[Output, ...]:
    return tuple(output_from(row) for row in execute(connection, "outputs", task_id=task_id))


def _fits(connection: sqlite3.Connection, task: Task, cap: float) -> bool:
    """Return whether the job's costs with this task stay within the cap.

    Must be called in the transaction that claims the task, so that two claims cannot exceed the cap together.
    """
    (spent,) = execute(connection, "spent").fetchone()
    return task.cost is not None and round(spent + task.cost, 6) <= cap


def _is_loopback(origin: str) -> bool:
    return origin.startswith(("http://127.", "http://localhost", "http://[::1]"))
