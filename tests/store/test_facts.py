"""Facts of an account: what its jobs have measured, and how long it counts."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from runner.errors import StateError
from runner.store.facts import AccountFacts, read_facts
from runner.tasks.fact import Fact
from runner.tasks.list_record import Lag, ListRecord, Witness
from runner.tasks.models import Moment

NOW, DAY = 1_800_000_000.0, 86_400.0


def witness(number: int) -> Witness:
    return Witness(f"id{number}", f"r{number}", "m", NOW + number - 1, NOW + number, Moment("b", float(number)))


RECORD = ListRecord(
    (witness(1), replace(witness(2), proof="digest")),
    Lag(3, 1.5),
    12,
    {("m", "prompt"): True, ("m", "style"): False},
    NOW - 60,
)


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


def fact(state="measured", at=NOW, **fields) -> Fact:
    return Fact("reference_in_list", state, "image", value="yes", first_at=at, last_at=at, **fields)


async def test_known_facts_add_up(tmp_path):
    facts = AccountFacts(tmp_path)
    await facts.record("a list", fact(), fact(subject="1302"))
    await facts.record("a list", fact(at=NOW + 5, n=3))
    first, second = await AccountFacts(tmp_path).facts("a list", NOW + 6)
    assert (first.n, first.first_at, first.last_at) == (4, NOW, NOW + 5)
    assert (second.subject, second.n) == ("1302", 1)
    assert await facts.facts("another", NOW) == ()


async def test_contradiction_stays_until_cleared(tmp_path):
    facts = AccountFacts(tmp_path)
    await facts.record("a list", fact(n=40))
    await facts.record("a list", fact("contradicted", NOW + 1, why="id7 had none"))
    await facts.record("a list", fact(at=NOW + 2, n=9))
    (known,) = await facts.facts("a list", NOW + 400 * DAY)
    assert (known.state, known.n, known.why) == ("contradicted", 1, "id7 had none")
    await facts.clear("a list", known)
    await facts.record("a list", fact(at=NOW + 3))
    assert [each.state for each in await facts.facts("a list", NOW + 3)] == ["measured"]


async def test_measured_facts_expire(tmp_path):
    facts = AccountFacts(tmp_path)
    await facts.record("a list", fact(n=40))
    assert await facts.facts("a list", NOW + 31 * DAY) == ()
    await facts.record("a list", fact(at=NOW + 40 * DAY))
    assert [each.n for each in await facts.facts("a list", NOW + 40 * DAY)] == [1]


async def test_a_persons_word_outlives_measurements(tmp_path):
    facts = AccountFacts(tmp_path)
    await facts.record("a list", fact("declared"))
    await facts.record("a list", fact(at=NOW + 1))
    assert [each.state for each in await facts.facts("a list", NOW + 900 * DAY)] == ["declared"]


async def test_facts_without_end_are_forgotten(tmp_path):
    facts = AccountFacts(tmp_path)
    many = [fact(at=NOW + number, subject=str(number)) for number in range(1_100)]
    await facts.record("a list", fact("contradicted", NOW - 1, subject="old"), *many)
    kept = await facts.facts("a list", NOW + 2_000)
    assert len(kept) == 1_000
    assert {"old", "1099"} <= {each.subject for each in kept}


async def test_everything_is_read_for_people_expired_or_not(tmp_path):
    facts = AccountFacts(tmp_path)
    await facts.save("a list", RECORD, NOW)
    await facts.record(
        "a list", Fact("reference_in_list", "measured", n=2, first_at=NOW - 90 * DAY, last_at=NOW - 90 * DAY)
    )
    found = {(each.name, each.subject): each for each in read_facts(tmp_path, "a list")}
    assert found["reference_in_list", ""].n == 2
    assert (found["lag", ""].value, found["lag", ""].n, found["capacity", ""].value) == ("1.5", 3, "12")
    assert found["stranger", ""].last_at == NOW - 60
    assert (found["field", "prompt"].value, found["field", "style"].state) == ("verbatim", "contradicted")
    assert read_facts(tmp_path, "another list") == ()


def test_nothing_is_read_or_made_where_there_is_no_file(tmp_path):
    assert read_facts(tmp_path / "none", "a list") == ()
    assert list(tmp_path.iterdir()) == []


async def test_file_of_an_earlier_version_is_read(tmp_path):
    """It has no table of facts with a state, and reading it adds none."""
    await AccountFacts(tmp_path).save("a list", RECORD, NOW)
    with closing(sqlite3.connect(tmp_path / "facts.db")) as connection:
        connection.execute("drop table known")
    before = (tmp_path / "facts.db").read_bytes()
    assert {each.name for each in read_facts(tmp_path, "a list")} == {"lag", "capacity", "stranger", "field"}
    assert (tmp_path / "facts.db").read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"not a database" * 100),
        lambda path: _replace_table(
            path, "insert into known values ('a list', 'lag', '', '', '', '', '', 'x', 0, 0, '')"
        ),
        lambda path: _replace_table(path, "drop table known", "create table known (list)"),
    ],
    ids=["no database", "text where a number stands", "another table"],
)
async def test_damaged_file_is_named(tmp_path, damage):
    await AccountFacts(tmp_path).save("a list", RECORD, NOW)
    damage(tmp_path / "facts.db")
    with pytest.raises(StateError) as raised:
        read_facts(tmp_path, "a list")
    assert "facts.db" in raised.value.message
    assert raised.value.hint == "Move it away: what it holds is measured again."


def _replace_table(path, *statements: str) -> None:
    columns = "list, name, operation, model, subject, state, value, n, first_at, last_at, why"
    with closing(sqlite3.connect(path)) as connection:
        for statement in ("drop table known", f"create table known ({columns})", *statements):
            connection.execute(statement)
        connection.commit()


async def test_version_differs_after_each_change_by_anybody(tmp_path):
    """Changes within one tick of the file system's clock are told apart too."""
    facts, other = AccountFacts(tmp_path), AccountFacts(tmp_path)
    seen = [facts.version()]
    for number in range(20):
        await other.record("a list", fact(subject=str(number)))
        seen.append(facts.version())
        await facts.facts("a list", NOW)
        assert facts.version() == seen[-1], "reading changes nothing"
    assert seen[0] is None
    assert len(set(seen)) == 21
