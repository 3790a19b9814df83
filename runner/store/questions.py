"""Queries of a job's open store."""

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

#: most recent finished tasks that are searched for late results
_NEAR = 10_000


class Prospect(NamedTuple):
    """Due times of the next polls in seconds since the epoch, None where no poll is due."""

    oldest: float | None
    #: due time of the nth poll
    last: float | None
    #: True if a task could be bought now
    queued: bool


class Questions:
    """Reading half of `Store`, and the record of which request fields a model's list returns unchanged.

    Methods raise DiskError, JobLockedError and StateError.
    """

    _writer: Writer

    async def in_state(self, state: State) -> list[Task]:
        """Return every task of a state, which must be one that few tasks are in."""
        return [task_from(row) for row in await self._all("in_state", state=state)]

    async def late(self, provider: str, operations: Collection[str], since: float, most: int) -> list[Task]:
        """Return failed and stranded tasks that the provider may have completed after all, the latest first.

        Only tasks bought since then (seconds since the epoch) are considered.
        """
        found: list[Task] = []
        for state in (State.FAILED, State.STRANDED):
            parameters = {
                "operations": as_json(operations),
                "since": since,
                "scan_limit": _NEAR,
                "limit": most - len(found),
            }
            found += [
                task_from(row)
                for row in await self._all("late_candidates", provider=provider, state=state, **parameters)
            ]
        return found

    async def ever_sent(self, provider: str) -> list[Task]:
        """Return every task of a provider for which a request was ever sent."""
        return [task_from(row) for row in await self._all("tasks_ever_sent", provider=provider)]

    async def by_key(self, key: str) -> list[Task]:
        """Return up to three tasks whose key has this prefix."""
        return [task_from(row) for row in await self._all("by_key", key=key)]

    async def next_due(self, provider: str, state: State, operations: Collection[str] | None = None) -> float | None:
        """Return when the next task of the state is due, or None if there is none.

        `operations` restricts the search. The time is in seconds since the epoch.
        """
        if operations is None:
            row = await self._one("next_due", provider=provider, state=state)
        else:
            row = await self._one("next_due_group", provider=provider, state=state, operations=as_json(operations))
        return None if row is None else row[0]

    async def prospect(
        self, provider: str, state: State, operations: Collection[str], now: float, few: int
    ) -> Prospect:
        """Return when the next polls of a state are due, and whether a task could be bought now, in one query.

        `nth` is the number of the poll whose due time is wanted beside that of the first.
        """
        parameters = {"provider": provider, "state": state, "operations": as_json(operations), "now": now, "nth": few}
        row = await self._one("poll_outlook", **parameters)
        return Prospect(row[0], row[1], bool(row[2])) if row else Prospect(None, None, queued=False)

    async def waiting(
        self, provider: str, state: State, operations: Collection[str], held: Collection[int], most: int
    ) -> list[Task]:
        """Return the tasks of a state that are due first, at any time, except those whose ids are in `exclude`."""
        parameters = {"soon": math.inf, "limit": most, "exclude": as_json(held), "operations": as_json(operations)}
        return [task_from(row) for row in await self._all("claim_group", provider=provider, state=state, **parameters)]

    async def providers(self, *, again: bool = False) -> set[str]:
        """Return the providers that have unfinished tasks.

        With `include_finished`, providers with done, failed or stranded tasks are included. Held tasks never count.
        """
        return {row[0] for row in await self._all("providers_with_work", include_finished=again)}

    async def lost_at(self) -> set[str]:
        """Return the providers with failed or stranded tasks."""
        return {row[0] for row in await self._all("providers_with_losses")}

    async def counts(self) -> dict[str, int]:
        """Return the number of tasks in each state that has any."""
        return {row[0]: row[1] for row in await self._all("counts")}

    async def counts_by_provider(self) -> dict[str, dict[str, int]]:
        """Return the number of tasks by provider and state, without unbought tasks removed from the manifest."""
        counts: dict[str, dict[str, int]] = {}
        for provider, state, count in await self._all("counts_by_provider"):
            counts.setdefault(provider, {})[state] = count
        return counts

    async def gone(self) -> int:
        """Return the number of unbought tasks that were removed from the manifest."""
        row = await self._one("removed_unsent")
        return row[0] if row else 0

    async def busy(self, provider: str, states: Collection[State], room: int = 2**31) -> bool:
        """Return whether a task of these states is due for work, or any task is being submitted.

        A queued task counts only if it fits into `free_slots`: if nothing else is running, no slot will become free.
        This is one query, since tasks change their states between two.
        """
        row = await self._one("has_work", provider=provider, states=as_json(list(states)), free_slots=room)
        return bool(row and row[0])

    async def spent(self) -> float:
        """Return the most that the job can have cost, with tasks in doubt or held, in the provider's unit."""
        row = await self._one("spent")
        return row[0] if row else 0.0

    async def ever_bought(self) -> bool:
        """Return whether a request was ever sent."""
        row = await self._one("has_ever_sent")
        return bool(row and row[0])

    async def tasks(self) -> str:
        """Return the sum of the keys of the tasks in the manifest.

        The sum has 32 hex digits. It is empty before the tasks were added.
        """
        row = await self._one("job")
        return row["tasks"] if row else ""

    async def partial(self) -> int:
        """Return the number of done tasks that have fewer outputs than were ordered."""
        row = await self._one("count_partial")
        return row[0] if row else 0

    async def given_up(self) -> int:
        """Return the number of failed tasks that were removed from the manifest."""
        row = await self._one("removed_failed")
        return row[0] if row else 0

    async def slots_taken(self, provider: str) -> int:
        """Return how many slots of the account's window this job takes."""
        row = await self._one("slots_taken", provider=provider)
        return row[0] if row else 0

    async def claimed(self, provider: str, remote_ids: Sequence[str]) -> set[str]:
        """Return the remote ids that a task of this job owns or has owned."""
        return {row[0] for row in await self._all("claimed_ids", provider=provider, remote_ids=as_json(remote_ids))}

    async def rivals(self, fingerprint: str, request: str) -> bool:
        """Return whether another request was sent that has the same fingerprint in the provider's list."""
        row = await self._one("has_ambiguous_request", fingerprint=fingerprint, request=request)
        return bool(row and row[0])

    async def twins_sent(self, fingerprint: str) -> list[tuple[str, float]]:
        """Return boot and seconds of the doubtful sends of a fingerprint."""
        return [(row[0], row[1]) for row in await self._all("duplicate_sends", fingerprint=fingerprint)]

    async def twin_submitting(self, fingerprint: str) -> bool:
        """Return whether a task with this fingerprint is being submitted."""
        row = await self._one("is_duplicate_submitting", fingerprint=fingerprint)
        return bool(row and row[0])

    async def is_running(self, provider: str, model: str) -> bool:
        """Return whether a task of this model is running."""
        row = await self._one("is_model_running", provider=provider, model=model)
        return bool(row and row[0])

    async def put_echoes(self, provider: str, model: str, fields: Mapping[str, bool]) -> None:
        """Record which request fields of a model the provider's list returns unchanged."""
        rows = [
            {"provider": provider, "model": model, "field": name, "verbatim": int(unchanged)}
            for name, unchanged in fields.items()
        ]
        await self._writer.change(
            lambda connection: connection.executemany(sql.queries()["put_echoed_field"], rows) and None
        )

    async def echoes(self, provider: str, model: str) -> dict[str, bool]:
        """Return the recorded request fields of a model, with True for those that are returned unchanged."""
        return {row[0]: bool(row[1]) for row in await self._all("echoed_fields", provider=provider, model=model)}

    async def _write(self, query: str, **parameters: Any) -> None:
        await self._writer.change(lambda connection: execute(connection, query, **parameters) and None)

    async def _one(self, query: str, **parameters: Any) -> sqlite3.Row | None:
        return await self._writer.transact(lambda connection: execute(connection, query, **parameters).fetchone())

    async def _all(self, query: str, **parameters: Any) -> list[sqlite3.Row]:
        return await self._writer.transact(lambda connection: execute(connection, query, **parameters).fetchall())


def execute(connection: sqlite3.Connection, query: str, **parameters: Any) -> sqlite3.Cursor:
    """Execute a named statement."""
    return connection.execute(sql.queries()[query], parameters)
