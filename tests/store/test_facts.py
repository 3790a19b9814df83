"""Facts of an account: what its jobs have measured, and how long it counts."""

from __future__ import annotations

import pytest

from runner.errors import StateError
from runner.store.facts import AccountFacts
from runner.tasks.list_record import Lag, ListRecord, Witness
from runner.tasks.models import Moment

NOW, DAY = 1_800_000_000.0, 86_400.0


def witness(number: int) -> Witness:
    return Witness(f"id{number}", f"r{number}", "m", NOW + number - 1, NOW + number, Moment("b", float(number)))


RECORD = ListRecord((witness(1), witness(2)), Lag(3, 1.5), 12, {("m", "prompt"): True, ("m", "style"): False}, NOW - 60)


async def test_facts_are_kept_for_other_jobs(tmp_path):
    await AccountFacts(tmp_path).save("a list", RECORD, NOW)
    assert await AccountFacts(tmp_path).load("a list", NOW) == RECORD
    assert await AccountFacts(tmp_path).load("another", NOW) == ListRecord()
    assert (tmp_path / "facts.db").stat().st_mode & 0o777 == 0o600


async def test_reading_makes_no_file(tmp_path):
    assert await AccountFacts(tmp_path).load("a list", NOW) == ListRecord()
    assert list(tmp_path.iterdir()) == []


async def test_facts_expire_but_for_contradictions(tmp_path):
    await AccountFacts(tmp_path).save("a list", RECORD, NOW)
    later = await AccountFacts(tmp_path).load("a list", NOW + 31 * DAY)
    assert later.lag.samples == 0
    assert later.capacity == 12
    assert later.echo == {("m", "style"): False}


async def test_merging_keeps_the_worst(tmp_path):
    facts = AccountFacts(tmp_path)
    await facts.save("a list", RECORD, NOW)
    await facts.save("a list", ListRecord((witness(3),), Lag(2, 40.0), 5, {("m", "prompt"): False}), NOW + 1)
    merged = await facts.load("a list", NOW + 2)
    assert merged.lag == Lag(3, 40.0)
    assert merged.capacity == 12
    assert not merged.echo["m", "prompt"]
    assert [each.remote_id for each in merged.witnesses] == ["id1", "id2", "id3"]


async def test_only_the_latest_tasks_are_kept(tmp_path):
    await AccountFacts(tmp_path).save("a list", ListRecord(tuple(map(witness, range(200)))), NOW)
    kept = (await AccountFacts(tmp_path).load("a list", NOW)).witnesses
    assert {each.remote_id for each in kept} == {f"id{number}" for number in range(136, 200)}


async def test_damaged_file_says_what_to_do(tmp_path):
    (tmp_path / "facts.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StateError) as raised:
        await AccountFacts(tmp_path).load("a list", NOW)
    assert raised.value.hint == "Move it away: what it holds is measured again."
