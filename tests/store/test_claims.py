"""A remote task belongs to the job of an account that claims it first."""

import sqlite3
from contextlib import closing

import anyio
import anyio.lowlevel
import pytest

from runner.errors import Locked
from runner.lifecycle.task import Moment
from runner.store import claims
from runner.store.claims import Claims
from runner.store.shared_file import SharedFile


async def test_id_is_claimed_once_and_stays_with_its_owner(tmp_path):
    one, two = Claims(tmp_path, "one"), Claims(tmp_path, "two")
    assert await one.take("r-1")
    assert not await two.take("r-1")
    assert await one.take("r-1"), "a job's own id may be claimed again after a crash"
    assert await two.others(["r-1", "r-2"]) == {"r-1"}
    assert await one.others(["r-1", "r-2"]) == set()


@pytest.mark.parametrize("later", ["the next id", "the end of the run"])
async def test_accepted_id_does_not_wait_for_a_stopped_process(tmp_path, monkeypatch, later):
    """That process holds the file. The id is written with the next one, or at the end of the run."""
    monkeypatch.setattr(claims, "_MOMENT", 0.05)
    monkeypatch.setattr(claims, "_PATIENCE", 0.05)
    one, two = Claims(tmp_path, "one"), Claims(tmp_path, "two")
    assert await two.given("r-0")
    with closing(sqlite3.connect(tmp_path / "claims.db", isolation_level=None)) as blocker:
        blocker.execute("begin immediate")
        assert await one.given("r-1")
        assert await one.given("r-2")
        await one.settle_up()
        with pytest.raises(Locked):
            await one.take("r-3")
        blocker.execute("rollback")
    assert await two.others(["r-1", "r-2"]) == set()
    if later == "the next id":
        assert not await one.given("r-0"), "another job has it"
    else:
        await one.settle_up()
    assert await two.others(["r-1", "r-2", "r-3"]) == {"r-1", "r-2"}


async def test_claims_use_no_write_ahead_log(tmp_path):
    """Many processes write, and two at once could damage such a log."""
    await Claims(tmp_path, "one").take("r-1")
    with closing(sqlite3.connect(tmp_path / "claims.db")) as database:
        assert database.execute("pragma journal_mode").fetchone() == ("delete",)


async def test_of_many_who_ask_at_once_one_gets_it(tmp_path):
    got = []

    async def ask(job: str) -> None:
        if await Claims(tmp_path, job).take("r-1"):
            got.append(job)

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(ask, f"job-{number}")
    assert len(got) == 1


async def test_doubts_of_other_jobs_are_found_by_fingerprint(tmp_path):
    one, two = Claims(tmp_path, "one"), Claims(tmp_path, "two")
    await one.doubt("ref-1", "print", Moment("boot", 5.0))
    assert await two.doubts("print") == [("boot", 5.0)]
    assert await two.doubts("another") == []
    assert await one.doubts("print") == [], "a job's own doubts are in its own store"


async def test_claims_are_private(tmp_path):
    home = tmp_path / "account"
    await Claims(home, "one").take("r")
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "claims.db").stat().st_mode & 0o777 == 0o600


async def test_ids_that_come_together_share_a_transaction(tmp_path, monkeypatch):
    one, two = Claims(tmp_path, "one"), Claims(tmp_path, "two")
    assert await two.given("r-3")
    written, transact = [], SharedFile.transact
    monkeypatch.setattr(
        SharedFile, "transact", lambda self, *given: written.append(None) or transact(self, *given), raising=True
    )
    ours = {}

    async def give(remote_id: str) -> None:
        ours[remote_id] = await one.given(remote_id)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(give, f"r-{number}")
    assert [name for name, mine in ours.items() if not mine] == ["r-3"]
    assert len(ours) == 20
    assert len(written) <= 2, "the first is written alone, the others wait and are written together"
    assert await two.others([*ours]) == ours.keys() - {"r-3"}


async def test_cancelled_claim_harms_no_other_of_its_batch(tmp_path):
    one, got = Claims(tmp_path, "one"), []

    async def give(remote_id: str) -> None:
        got.append((remote_id, await one.given(remote_id)))

    async with anyio.create_task_group() as group:
        group.start_soon(give, "r-0")
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as doomed:
                doomed.start_soon(give, "r-1")
                group.start_soon(give, "r-2")
                await anyio.lowlevel.checkpoint()
                scope.cancel()
    assert max(got) == ("r-2", True)
    assert await one.given("r-1")


async def test_failed_transaction_raises_in_all_that_share_it(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "_MOMENT", 0.05)
    monkeypatch.setattr(claims, "_PATIENCE", 0.06)
    one, failed = Claims(tmp_path, "one"), []
    assert await one.given("r-0")

    async def take(remote_id: str) -> None:
        with pytest.raises(Locked):
            await one.take(remote_id)
        failed.append(remote_id)

    with closing(sqlite3.connect(tmp_path / "claims.db", isolation_level=None)) as blocker:
        blocker.execute("begin immediate")
        async with anyio.create_task_group() as group:
            for number in range(1, 9):
                group.start_soon(take, f"r-{number}")
    assert len(failed) == 8
    assert await one.take("r-8")
