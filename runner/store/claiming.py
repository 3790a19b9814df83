"""Ids that wait to be claimed, so that one transaction takes all of them: it costs two syncs, whatever is in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from runner.errors import RunnerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping


@dataclass
class _Batch:
    """Ids that are written together, and who has each of them afterwards, or why nobody can tell."""

    ids: set[str] = field(default_factory=set)
    outcome: Mapping[str, str] | RunnerError = field(default_factory=dict)


class Queue:
    """Whoever comes while a transaction is under way shares the next one; `write` gives each id's owner."""

    def __init__(self, write: Callable[[frozenset[str]], Awaitable[Mapping[str, str]]]) -> None:
        self._write, self._turn, self._next = write, anyio.Lock(), _Batch()

    def __repr__(self) -> str:
        return f"Queue({len(self._next.ids)} waiting)"

    async def owner(self, remote_id: str) -> str:
        """The job that has the id now; raises RunnerError, to all who share the transaction."""
        batch = self._next
        batch.ids.add(remote_id)
        async with self._turn:
            if batch is self._next:
                await self._take_all()
        if isinstance(batch.outcome, RunnerError):
            raise batch.outcome
        return batch.outcome[remote_id]

    async def _take_all(self) -> None:
        batch, self._next = self._next, _Batch()
        with anyio.CancelScope(shield=True):  # others wait for the answer as well
            try:
                batch.outcome = await self._write(frozenset(batch.ids))
            except RunnerError as error:
                batch.outcome = error
