"""A store on a real file, and rows in any state."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace

import pytest

from runner.lifecycle.task import Draft, Moment, State
from runner.store.adding import Addition
from runner.store.store import Store

NOW = 1_790_000_000.0


def key_of(number: int) -> str:
    """Return a key; a reference holds its first 20 digits."""
    return f"{number:08x}".ljust(32, "0")


def draft(number: int, **fields) -> Draft:
    key = key_of(number)
    made = Draft(
        key,
        number,
        1,
        {"n": number},
        "chanjing",
        "image",
        "kling-v2-1",
        {"ref_prompt": f"boat {number}"},
        f"boat-{number}",
    )
    return replace(made, **fields)


def additions(numbers, fingerprint="", **fields):
    return [Addition(draft(number, **fields), fingerprint) for number in numbers]


@dataclass
class Bench:
    """A store, its file, and shortcuts to bring rows into any state."""

    store: Store
    path: object
    sent: Moment = field(default_factory=lambda: Moment("boot-a", 10.0))

    async def add(self, *numbers, digest="d1", fingerprint="", **fields):
        await self.store.add(additions(numbers, fingerprint, **fields), digest, NOW)

    def begun(self, task):
        return replace(task, state=State.SUBMITTING, due_at=None, sent=self.sent, submitted_at=NOW, since=NOW)

    def key(self, number):
        return key_of(number)

    def draft(self, number, fingerprint="", **fields):
        return Addition(draft(number, **fields), fingerprint)

    async def claim(self, provider="chanjing", free_slots=10**6, now=NOW):
        return await self.store.claim_queued(provider, now, free_slots, self.begun)

    async def to(self, state, task=None, **fields):
        """Settle the next task to buy, or this one, into a state."""
        before = task or await self.claim()
        if state is State.SUBMITTING:
            return before
        paid = state in {State.RUNNING, State.READY, State.DONE, State.STRANDED}
        changes = {
            "state": state,
            "due_at": NOW if state in {State.RUNNING, State.READY, State.IN_DOUBT, State.QUEUED} else None,
        }
        if paid and before.remote_id is None:
            changes["remote_id"] = f"u-{before.id}"
        after = replace(before, **(changes | fields))
        assert await self.store.settle(before, after) == "done"
        return after

    def sql(self, text, *parameters):
        """Return rows as another program reads them from disk."""
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(text, parameters).fetchall()


@pytest.fixture
def home(tmp_path):
    return tmp_path / "job" / ".runner"


@pytest.fixture
def bench(home):
    """`async with bench() as made:`, since a fixture that yields inside a loop dies at teardown."""

    @asynccontextmanager
    async def opened(directory=home):
        made = Bench(await Store.open(directory), directory / "state.db")
        try:
            yield made
        finally:
            await made.store.aclose()  # a test may have opened another in its place

    return opened
