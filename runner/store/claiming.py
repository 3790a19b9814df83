"""Batching of claims: remote ids that wait together are claimed in one transaction.

A transaction costs two syncs of the disk, however many ids it claims.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from runner.errors import RunnerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping


@dataclass
class _Batch:
    """Remote ids of one transaction, and the owner of each afterwards or the error that prevented it."""

    ids: set[str] = field(default_factory=set)
    outcome: Mapping[str, str] | RunnerError = field(default_factory=dict)


class Queue:
    """Remote ids to be claimed, gathered while a transaction is under way.

    `write` claims a set of ids in one transaction, and returns the owner of each.
    """

    def __init__(self, write: Callable[[frozenset[str]], Awaitable[Mapping[str, str]]]) -> None:
        self._write, self._turn, self._next = write, anyio.Lock(), _Batch()

    def __repr__(self) -> str:
        return f"ClaimQueue({len(self._next.ids)} waiting)"

    async def owner(self, remote_id: str) -> str:
        """Claim the remote id and return the job that owns it now.

        Raises RunnerError if the transaction failed, in every task that shares it.
        """
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
        with anyio.CancelScope(shield=True):  # other tasks wait for this result too
            try:
                batch.outcome = await self._write(frozenset(batch.ids))
            except RunnerError as error:
                batch.outcome = error
