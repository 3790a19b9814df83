"""Queries of a job's open store."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import orjson

from runner.store.database import execute, statements
from runner.store.read_only import ReadOnlyQueries
from runner.store.task_rows import task_from, to_json
from runner.tasks.models import State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Mapping, Sequence

    from runner.store.writer import Writer
    from runner.tasks.models import Task

T = TypeVar("T")
#: most recent finished tasks that are searched for late results
_LATE_SCAN_LIMIT = 10_000


class PollOutlook(NamedTuple):
    """Due times of the next polls in seconds since the epoch, None where no poll is due."""

    first_due_at: float | None
    #: due time of the nth poll
    nth_due_at: float | None
    #: True if a task could be bought now
    has_queued: bool


class SubmitOutlook(NamedTuple):
    """What is left to be bought."""

    is_submitting: bool
    has_queued: bool
    can_submit: bool


class UnfetchedCounts(NamedTuple):
    """Numbers of paid tasks that are not on the disk: with the provider, finished, and with a download that failed."""

    running: int = 0
    ready: int = 0
    failing: int = 0


class Queries:
    """Reading half of `Store`, and the record of which request fields a model's list returns unchanged.

    Methods raise DiskError, JobLockedError and StateError.
    """

    _writer: Writer

    async def in_state(self, state: State) -> list[Task]:
        """Return every task of a state, which must be one that few tasks are in."""
        return [task_from(row) for row in await self._fetch_all("in_state", state=state)]

    async def late_candidates(self, provider: str, operations: Collection[str], since: float, limit: int) -> list[Task]:
        """Return failed and stranded tasks that the provider may have completed after all, the latest first.

        Only tasks bought since then (seconds since the epoch) are considered.
        """
        parameters = {"operations": to_json(operations), "since": since, "scan_limit": _LATE_SCAN_LIMIT}
        found: list[Task] = []
        for state in (State.FAILED, State.STRANDED):
            rows = await self._fetch_all(
                "late_candidates", provider=provider, state=state, limit=limit - len(found), **parameters
            )
            found += map(task_from, rows)
        return found

    async def tasks_ever_sent(self, provider: str) -> list[Task]:
        """Return every task of a provider for which a request was ever sent."""
        return [task_from(row) for row in await self._fetch_all("tasks_ever_sent", provider=provider)]

    async def open_duplicates(self, fingerprint: str) -> int:
        """Return how many tasks with a fingerprint are being submitted, in doubt or held."""
        row = await self._fetch_one("open_duplicates", fingerprint=fingerprint)
        return int(row[0]) if row else 0

    async def began_at(self) -> float:
        """Return when the job was made, seconds since the epoch."""
        row = await self._fetch_one("began_at")
        return float(row[0]) if row else 0.0

    async def witnesses(
        self, provider: str, operations: Collection[str], limit: int, *, include_adopted: bool
    ) -> list[Task]:
        """Return the tasks whose ids came in the answers to their own submits, the latest first, up to `limit`.

        With `include_adopted`, also those that were found later. Reads every row.
        """
        parameters = {"operations": to_json(operations), "limit": limit, "include_adopted": include_adopted}
        return [task_from(row) for row in await self._fetch_all("witnesses", provider=provider, **parameters)]

    async def bought_again_count(self, provider: str, since: float) -> int:
        """Return how many tasks were bought once more since a time because their first submit counts as absent."""
        row = await self._fetch_one("bought_again_count", provider=provider, since=since)
        return int(row[0]) if row else 0

    async def bought_again(
        self, provider: str, operations: Collection[str], model: str, span: tuple[float, float], limit: int
    ) -> list[tuple[str, str, str | None, float]]:
        """Return key, name, id and time of the latest tasks that were bought once more because they looked absent.

        `span` are two times in seconds since the epoch, between which they were sent. An empty `model` means all.
        """
        parameters = {"operations": to_json(operations), "model": model, "since": span[0], "until": span[1]}
        return [
            tuple(row) for row in await self._fetch_all("bought_again", provider=provider, limit=limit, **parameters)
        ]

    async def bought_after_refusal(
        self, provider: str, operation: str, code: str, span: tuple[float, float], limit: int
    ) -> list[tuple[str, str, str | None, float]]:
        """Return the same of tasks that were bought after a refusal that was believed, or that failed with a code."""
        parameters = {"operation": operation, "code": code, "since": span[0], "until": span[1], "limit": limit}
        return [tuple(row) for row in await self._fetch_all("bought_after_refusal", provider=provider, **parameters)]

    async def has_remote_ids(self, provider: str, operation: str = "") -> bool:
        """Return whether the provider has ever accepted a task of this job, or one of an operation."""
        if operation:
            return await self._fetch_bool("has_remote_ids_of", provider=provider, operation=operation)
        return await self._fetch_bool("has_remote_ids", provider=provider)

    async def submit_outlook(self, provider: str, free_slots: int) -> SubmitOutlook:
        """Return whether tasks are being submitted, wait to be bought, and could be bought within `free_slots`."""
        row = await self._fetch_one("submit_outlook", provider=provider, free_slots=free_slots)
        return SubmitOutlook(*map(bool, row or (False, False, False)))

    async def find_by_key_prefix(self, key: str) -> list[Task]:
        """Return up to three tasks whose key has this prefix."""
        return [task_from(row) for row in await self._fetch_all("by_key", key=key)]

    async def queued_like(self, provider: str, fingerprints: Collection[str], limit: int) -> list[Task]:
        """Return up to `limit` tasks with one of these fingerprints that wait to be bought."""
        rows = await self._fetch_all(
            "queued_like", provider=provider, fingerprints=to_json(list(fingerprints)), limit=limit
        )
        return [task_from(row) for row in rows]

    async def open_like(self, fingerprints: Collection[str]) -> dict[str, int]:
        """Return how many tasks with each of these fingerprints are submitted, in doubt or held, if there are any."""
        rows = await self._fetch_all("open_like", fingerprints=to_json(list(fingerprints)))
        return {row[0]: row[1] for row in rows}

    async def equal_files(self, limit: int) -> list[list[dict[str, Any]]]:
        """Return groups of tasks that have a file with the same checksum and different requests.

        Each task has `key`, `provider`, `remote_id` and `adopted`.
        """
        return [orjson.loads(row[0]) for row in await self._fetch_all("equal_files", limit=limit)]

    async def has_queued(self, provider: str, operations: Collection[str]) -> bool:
        """Return whether one of the first few thousand tasks to buy is of these operations, or there are more."""
        return await self._fetch_bool("has_queued", provider=provider, operations=to_json(list(operations)))

    async def linked_tasks(self, after: int, limit: int) -> list[Task]:
        """Return the finished tasks with ids above `after` whose outputs another job has paid for, up to `limit`."""
        return [task_from(row) for row in await self._fetch_all("linked", after=after, limit=limit)]

    async def find_queued(self, ids: Sequence[int]) -> list[Task]:
        """Return the tasks with these ids that wait to be bought, in the order of their ids."""
        return [task_from(row) for row in await self._fetch_all("queued_by_id", ids=to_json(ids))]

    async def next_due(self, provider: str, state: State, operations: Collection[str] | None = None) -> float | None:
        """Return when the next task of the state is due, or None if there is none.

        `operations` restricts the search. The time is in seconds since the epoch.
        """
        where = {"provider": provider, "state": state}
        if operations is None:
            return await self._fetch_value("next_due", None, **where)
        return await self._fetch_value("next_due_group", None, operations=to_json(operations), **where)

    async def poll_outlook(
        self, provider: str, state: State, operations: Collection[str], now: float, nth: int
    ) -> PollOutlook:
        """Return when the next polls of a state are due, and whether a task could be bought now, in one query.

        `nth` is the number of the poll whose due time is wanted beside that of the first.
        """
        parameters = {"provider": provider, "state": state, "operations": to_json(operations), "now": now, "nth": nth}
        row = await self._fetch_one("poll_outlook", **parameters)
        return PollOutlook(row[0], row[1], bool(row[2])) if row else PollOutlook(None, None, has_queued=False)

    async def earliest_due(
        self, provider: str, state: State, operations: Collection[str], exclude: Collection[int], limit: int
    ) -> list[Task]:
        """Return the tasks of a state that are due first, at any time, except those whose ids are in `exclude`."""
        parameters = {"soon": math.inf, "limit": limit, "exclude": to_json(exclude), "operations": to_json(operations)}
        return [
            task_from(row) for row in await self._fetch_all("claim_group", provider=provider, state=state, **parameters)
        ]

    async def providers_with_work(self, *, include_finished: bool = False) -> set[str]:
        """Return the providers that have unfinished tasks.

        With `include_finished`, providers with done, failed or stranded tasks are included. Held tasks never count.
        """
        return {row[0] for row in await self._fetch_all("providers_with_work", include_finished=include_finished)}

    async def providers_with_losses(self) -> set[str]:
        """Return the providers with failed or stranded tasks."""
        return {row[0] for row in await self._fetch_all("providers_with_losses")}

    async def counts(self) -> dict[str, int]:
        """Return the number of tasks in each state that has any."""
        return {row[0]: row[1] for row in await self._fetch_all("counts")}

    async def counts_by_provider(self) -> dict[str, dict[str, int]]:
        """Return the number of tasks by provider and state, without unbought tasks removed from the manifest."""
        return await self._read(ReadOnlyQueries.counts_by_provider)

    async def removed_unsent_count(self) -> int:
        """Return the number of unbought tasks that were removed from the manifest."""
        return await self._read(ReadOnlyQueries.removed_unsent_count)

    async def unserved(self, since: float, limit: int) -> list[Task]:
        """Return stranded tasks whose files may be served by now, of those sent since a time (since the epoch)."""
        return [task_from(row) for row in await self._fetch_all("unserved", since=since, limit=limit)]

    async def waiting_files(self) -> list[dict[str, Any]]:
        """Return why files that are paid for have not come yet, as in `ReadOnlyQueries`."""
        return await self._read(ReadOnlyQueries.waiting_files)

    async def unlisted_states(self) -> list[dict[str, Any]]:
        """Return the state words of running tasks that their specs do not list, as in `ReadOnlyQueries`."""
        return await self._read(ReadOnlyQueries.unlisted_states)

    async def has_work(
        self,
        provider: str,
        states: Collection[State],
        free_slots: int = 2**31,
        files_until: float = math.inf,
        *,
        unlisted: bool = True,
    ) -> bool:
        """Return whether a task of these states is due for work, or any task is being submitted.

        A file whose host is away counts only if it is fetched again before `files_until` (seconds since the epoch). A
        running task whose state word is not listed counts only with `unlisted`.

        A queued task counts only if it fits into `free_slots`: if nothing else is running, no slot will become free.
        This is one query, since tasks change their states between two.
        """
        return await self._fetch_bool(
            "has_work",
            provider=provider,
            states=to_json(list(states)),
            free_slots=free_slots,
            files_until=files_until,
            unlisted=unlisted,
        )

    async def spent(self) -> float:
        """Return the most that the job can have cost, with tasks in doubt or held, in the provider's unit."""
        return await self._fetch_value("spent", 0.0)

    async def has_ever_sent(self) -> bool:
        """Return whether a request was ever sent."""
        return await self._fetch_bool("has_ever_sent")

    async def last_sent_at(self) -> float | None:
        """Return when the latest request was sent, seconds since the epoch, or None if none was. Reads every row."""
        row = await self._fetch_one("last_sent_at")
        return None if row is None else row[0]

    async def key_sum(self) -> str:
        """Return the sum of the keys of the tasks in the manifest.

        The sum has 32 hex digits. It is empty before the tasks were added.
        """
        row = await self._fetch_one("job")
        return row["tasks"] if row else ""

    async def partial_count(self) -> int:
        """Return the number of done tasks that have fewer outputs than were ordered."""
        return await self._fetch_value("count_partial", 0)

    async def removed_failed_count(self) -> int:
        """Return the number of failed tasks that were removed from the manifest."""
        return await self._read(ReadOnlyQueries.removed_failed_count)

    async def unfetched_counts(self, provider: str) -> UnfetchedCounts:
        """Return how many of a provider's tasks are paid and not on the disk. Reads each of them."""
        row = await self._fetch_one("unfetched_counts", provider=provider)
        return UnfetchedCounts(*(row or ()))

    async def slots_taken(self, provider: str) -> int:
        """Return how many slots of the account's window this job takes."""
        return await self._fetch_value("slots_taken", 0, provider=provider)

    async def claimed_ids(self, provider: str, remote_ids: Sequence[str]) -> set[str]:
        """Return the remote ids that a task of this job owns or has owned."""
        return {
            row[0] for row in await self._fetch_all("claimed_ids", provider=provider, remote_ids=to_json(remote_ids))
        }

    async def has_ambiguous_request(self, fingerprint: str, request: str) -> bool:
        """Return whether another request was sent that has the same fingerprint in the provider's list."""
        return await self._fetch_bool("has_ambiguous_request", fingerprint=fingerprint, request=request)

    async def duplicate_sends(self, fingerprint: str) -> list[tuple[str, float]]:
        """Return boot and seconds of the doubtful sends of a fingerprint."""
        return [(row[0], row[1]) for row in await self._fetch_all("duplicate_sends", fingerprint=fingerprint)]

    async def ids_of_duplicates(self, fingerprint: str, since: float) -> set[str]:
        """Return the ids of tasks with a fingerprint that were sent since a time, in seconds since the epoch."""
        return {row[0] for row in await self._fetch_all("ids_of_duplicates", fingerprint=fingerprint, since=since)}

    async def has_adopted_duplicate(self, fingerprint: str) -> bool:
        """Return whether a task with this fingerprint was found in a list, and so may have taken another's row."""
        return await self._fetch_bool("has_adopted_duplicate", fingerprint=fingerprint)

    async def is_duplicate_submitting(self, fingerprint: str) -> bool:
        """Return whether a task with this fingerprint is being submitted."""
        return await self._fetch_bool("is_duplicate_submitting", fingerprint=fingerprint)

    async def is_model_running(self, provider: str, model: str) -> bool:
        """Return whether a task of this model is running."""
        return await self._fetch_bool("is_model_running", provider=provider, model=model)

    async def put_echoed_fields(self, provider: str, model: str, fields: Mapping[str, bool]) -> None:
        """Record which request fields of a model the provider's list returns unchanged."""
        rows = [
            {"provider": provider, "model": model, "field": name, "verbatim": int(unchanged)}
            for name, unchanged in fields.items()
        ]
        await self._writer.write(
            lambda connection: connection.executemany(statements()["put_echoed_field"], rows) and None
        )

    async def echoed_fields(self, provider: str, model: str) -> dict[str, bool]:
        """Return the recorded request fields of a model, with True for those that are returned unchanged."""
        return {row[0]: bool(row[1]) for row in await self._fetch_all("echoed_fields", provider=provider, model=model)}

    async def _execute(self, query: str, **parameters: Any) -> None:
        await self._writer.write(lambda connection: execute(connection, query, **parameters) and None)

    async def _read(self, query: Callable[[ReadOnlyQueries], T]) -> T:
        """Return the result of a query that is also asked without an open store."""
        return await self._writer.transact(lambda connection: query(ReadOnlyQueries(connection)))

    async def _fetch_value(self, query: str, default: T, **parameters: Any) -> T:
        """Return the first column of the first row, or `default` if there is no row."""
        row = await self._fetch_one(query, **parameters)
        return default if row is None else row[0]

    async def _fetch_bool(self, query: str, **parameters: Any) -> bool:
        """Return whether the first column of the first row is true."""
        return bool(await self._fetch_value(query, 0, **parameters))

    async def _fetch_one(self, query: str, **parameters: Any) -> sqlite3.Row | None:
        return await self._writer.transact(lambda connection: execute(connection, query, **parameters).fetchone())

    async def _fetch_all(self, query: str, **parameters: Any) -> list[sqlite3.Row]:
        return await self._writer.transact(lambda connection: execute(connection, query, **parameters).fetchall())
