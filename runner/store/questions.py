"""What can be asked of a job's store while it is open; nothing here decides anything."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.lifecycle.task import State
from runner.store import sql
from runner.store.rows import as_json, task_from

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping, Sequence

    from runner.lifecycle.task import Task
    from runner.store.writer import Writer

#: tasks at rest among which those are looked for that may have been made after all
_NEAR = 10_000


class Prospect(NamedTuple):
    """When looks are due, seconds since the epoch; None where there are none."""

    oldest: float | None
    #: the last of a few
    last: float | None
    #: something could be bought now
    queued: bool


class Questions:
    """The reading half of `Store`, and what a model's echo is known to be."""

    _writer: Writer

    async def in_state(self, state: State) -> list[Task]:
        """Every task of a state that few are in."""
        return [task_from(row) for row in await self._all("in_state", state=state)]

    async def late(self, provider: str, operations: Collection[str], since: float, most: int) -> list[Task]:
        """Tasks at rest that the provider may have made after all, bought since then, the latest first."""
        found: list[Task] = []
        for state in (State.FAILED, State.STRANDED):
            parameters = {"operations": as_json(operations), "since": since, "near": _NEAR, "limit": most - len(found)}
            found += [task_from(row) for row in await self._all("late", provider=provider, state=state, **parameters)]
        return found

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
            row = await self._one("next_due_group", provider=provider, state=state, operations=as_json(operations))
        return None if row is None else row[0]

    async def prospect(
        self, provider: str, state: State, operations: Collection[str], now: float, few: int
    ) -> Prospect:
        """What a stage needs to know before its next call, in one look."""
        parameters = {"provider": provider, "state": state, "operations": as_json(operations), "now": now, "few": few}
        row = await self._one("prospect", **parameters)
        return Prospect(row[0], row[1], bool(row[2])) if row else Prospect(None, None, queued=False)

    async def waiting(
        self, provider: str, state: State, operations: Collection[str], held: Collection[int], most: int
    ) -> list[Task]:
        """The tasks of a state that are due first, however far away, but those in `held`."""
        parameters = {"soon": math.inf, "limit": most, "held": as_json(held), "operations": as_json(operations)}
        return [task_from(row) for row in await self._all("claim_group", provider=provider, state=state, **parameters)]

    async def providers(self, *, again: bool = False) -> set[str]:
        """Providers with tasks that this run has work with; `again` counts those at rest among them, but the held."""
        return {row[0] for row in await self._all("providers", again=again)}

    async def lost_at(self) -> set[str]:
        """Providers with tasks that have nothing to show."""
        return {row[0] for row in await self._all("lost_at")}

    async def counts(self) -> dict[str, int]:
        """How many tasks are in each state; states without any are left out."""
        return {row[0]: row[1] for row in await self._all("counts")}

    async def counts_by_provider(self) -> dict[str, dict[str, int]]:
        """The same for each provider, without unbought tasks that left the manifest."""
        counts: dict[str, dict[str, int]] = {}
        for provider, state, count in await self._all("counts_by_provider"):
            counts.setdefault(provider, {})[state] = count
        return counts

    async def gone(self) -> int:
        """How many unbought tasks left the manifest."""
        row = await self._one("gone")
        return row[0] if row else 0

    async def busy(self, provider: str, states: Collection[State], room: int = 2**31) -> bool:
        """Whether a task of these states is still to be worked on, or any on the wire; one look, since tasks move.

        What is to be bought must fit into the room: where nothing else is busy, no more of it will come.
        """
        row = await self._one("busy", provider=provider, states=as_json(list(states)), room=room)
        return bool(row and row[0])

    async def spent(self) -> float:
        """What the job has cost at the most: what is in doubt or held counts."""
        row = await self._one("spent")
        return row[0] if row else 0.0

    async def ever_bought(self) -> bool:
        """Whether a request was ever sent."""
        row = await self._one("ever_bought")
        return bool(row and row[0])

    async def tasks(self) -> str:
        """The sum of the keys of the tasks that the manifest asks for: 32 hex digits, or nothing."""
        row = await self._one("job")
        return row["tasks"] if row else ""

    async def partial(self) -> int:
        """How many finished tasks have fewer outputs than were ordered."""
        row = await self._one("partial")
        return row[0] if row else 0

    async def given_up(self) -> int:
        """How many failed tasks are no longer in the manifest, so that nobody waits for them."""
        row = await self._one("given_up")
        return row[0] if row else 0

    async def slots_taken(self, provider: str) -> int:
        """How much of the account's window this job takes."""
        row = await self._one("slots_taken", provider=provider)
        return row[0] if row else 0

    async def claimed(self, provider: str, remote_ids: Sequence[str]) -> set[str]:
        """Those of the remote ids that belong to a task already."""
        return {row[0] for row in await self._all("claimed", provider=provider, remote_ids=as_json(remote_ids))}

    async def rivals(self, fingerprint: str, request: str) -> bool:
        """Whether another request that was sent is shown alike by the list."""
        row = await self._one("rivals", fingerprint=fingerprint, request=request)
        return bool(row and row[0])

    async def twins_sent(self, fingerprint: str) -> list[tuple[str, float]]:
        """Boot and seconds of the doubtful sends of a fingerprint."""
        return [(row[0], row[1]) for row in await self._all("twins_sent", fingerprint=fingerprint)]

    async def twin_submitting(self, fingerprint: str) -> bool:
        """Whether a twin is on the wire right now."""
        row = await self._one("twin_submitting", fingerprint=fingerprint)
        return bool(row and row[0])

    async def is_running(self, provider: str, model: str) -> bool:
        """Whether a task of this model is being made, and will be asked about."""
        row = await self._one("is_running", provider=provider, model=model)
        return bool(row and row[0])

    async def put_echoes(self, provider: str, model: str, fields: Mapping[str, bool]) -> None:
        """Learn which fields of a model the list gives back verbatim."""
        rows = [
            {"provider": provider, "model": model, "field": name, "verbatim": int(same)}
            for name, same in fields.items()
        ]
        await self._writer.change(lambda connection: connection.executemany(sql.queries()["put_echo"], rows) and None)

    async def echoes(self, provider: str, model: str) -> dict[str, bool]:
        """What is known of a model's echo: field to verbatim."""
        return {row[0]: bool(row[1]) for row in await self._all("echoes", provider=provider, model=model)}

    async def _write(self, query: str, **parameters: Any) -> None:
        await self._writer.change(lambda connection: execute(connection, query, **parameters) and None)

    async def _one(self, query: str, **parameters: Any) -> sqlite3.Row | None:
        return await self._writer.transact(lambda connection: execute(connection, query, **parameters).fetchone())

    async def _all(self, query: str, **parameters: Any) -> list[sqlite3.Row]:
        return await self._writer.transact(lambda connection: execute(connection, query, **parameters).fetchall())


def execute(connection: sqlite3.Connection, query: str, **parameters: Any) -> sqlite3.Cursor:
    """Run a named query."""
    return connection.execute(sql.queries()[query], parameters)
