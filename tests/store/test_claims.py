"""A remote task belongs to one job of an account, whoever asks first."""

import anyio

from runner.lifecycle.task import Moment
from runner.store.claims import Claims


async def test_an_id_is_taken_once_and_stays_with_whoever_took_it(tmp_path):
    one, two = Claims(tmp_path, "one"), Claims(tmp_path, "two")
    assert await one.take("r-1")
    assert not await two.take("r-1")
    assert await one.take("r-1"), "one's own id may be claimed again after a crash"
    assert await two.others(["r-1", "r-2"]) == {"r-1"}
    assert await one.others(["r-1", "r-2"]) == set()


async def test_of_many_who_ask_at_once_one_gets_it(tmp_path):
    got = []

    async def ask(job: str) -> None:
        if await Claims(tmp_path, job).take("r-1"):
            got.append(job)

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(ask, f"job-{number}")
    assert len(got) == 1


async def test_doubts_of_other_jobs_are_known_by_fingerprint(tmp_path):
    one, two = Claims(tmp_path, "one"), Claims(tmp_path, "two")
    await one.doubt("ref-1", "print", Moment("boot", 5.0))
    assert await two.doubts("print") == [("boot", 5.0)]
    assert await two.doubts("another") == []
    assert await one.doubts("print") == [], "one's own doubts stand in the job's own store"


async def test_claims_are_private(tmp_path):
    home = tmp_path / "account"
    await Claims(home, "one").take("r")
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "claims.db").stat().st_mode & 0o777 == 0o600
