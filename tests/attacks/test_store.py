"""Hostile state: a crafted database or journal, invalid keys, planted links."""

from __future__ import annotations

import ast
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import runner
from runner.errors import DiskError, RunnerError, StateError
from runner.store import journal
from runner.store.read_only import open_read_only
from runner.store.rebuild import rebuild
from runner.store.store import Store
from tests.store.conftest import NOW


def change(path, script):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma writable_schema = on")
        connection.executescript(script)


def read_everything(directory):
    with open_read_only(directory) as job:
        return job.counts(), job.error_groups(), list(job.results()), list(job.saved_files())


async def made(bench):
    async with bench() as one:
        await one.add(1, 2)
        await one.to("running")
        return one.path


OUTPUT = "create table output (task_id, number, url, file, bytes, sha256, media_type)"
CRAFTED = {
    "a trigger that buys again": "create trigger more after update on task begin update task set state = 'queued'; end",
    "our trigger, other": "drop trigger task_moved; create trigger task_moved after insert on job begin select 1; end",
    "a view in the place of a table": "alter table echo rename to echo2; create view echo as select * from echo2",
    "a virtual table": "create virtual table draft2 using fts5(a)",
    "a table without its checks": f"drop table output; {OUTPUT}",
    "a column that is made": "alter table task add column evil text generated always as (hex(key)) virtual",
    "another index": "create index evil on draft (upper(name))",
    "a table that is gone": "drop table echo",
}


@pytest.mark.parametrize("script", CRAFTED.values(), ids=CRAFTED)
async def test_x34_only_known_schema_is_opened(bench, script):
    path = await made(bench)
    change(path, script)
    with pytest.raises(StateError):
        await Store.open(path.parent)
    with pytest.raises(StateError):
        read_everything(path.parent)


ROWS = {
    "columns that are no JSON": "update draft set vars = '{', request = 'x'",
    "a state that is none": "pragma ignore_check_constraints = on; update task set state = 'evil'",
    "an id of a kind that is none": "pragma ignore_check_constraints = on; update task set generation = -1",
    "text that is none": "update draft set vars = cast(x'fffe' as text)",
    "bytes where text should be": "pragma writable_schema = on; update draft set name = cast(x'ff00ff' as text)",
    "a value of a hundred megabytes": "update draft set vars = cast(zeroblob(100000000) as text)",
}


@pytest.mark.slow
@pytest.mark.parametrize("script", ROWS.values(), ids=ROWS)
async def test_x34_forged_rows_are_reported_by_name(bench, script):
    path = await made(bench)
    change(path, script)
    codes = []
    try:
        read_everything(path.parent)
        store = await Store.open(path.parent)
        await store.aclose()
    except RunnerError as error:
        codes.append(error.exit_code)
    assert codes in ([], [13])


@pytest.mark.parametrize("file", ["../../victim.png", "/etc/passwd", "a/b.png", "..", ".runner", "a\0b", ""])
async def test_x34_outputs_outside_of_directory_are_refused(bench, file):
    path = await made(bench)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("insert into output (task_id, number, url, file) values (1, 1, '', ?)", (file,))
    with pytest.raises(StateError) as caught:
        read_everything(path.parent)
    assert "no output of a job is called so" in str(caught.value)


@pytest.mark.parametrize("file", ["../../victim.png", "/etc/passwd", "a/b.png"])
async def test_x34_journal_outputs_stay_in_directory(bench, file):
    async with bench() as one:
        await one.add(1)
        task = await one.to("running")
        path = one.path
    saved = {"number": 1, "file": file, "bytes": 1, "sha256": "0" * 64, "media_type": "image/png"}
    line = {"t": "saved", "ref": task.ref, "files": [saved], "reason": None}
    with (path.parent / "journal.jsonl").open("ab") as out:
        out.write(journal.encode(line))
    with pytest.raises(StateError):
        rebuild(path.parent, (), NOW)


async def test_x34_foreign_database_is_refused(home):
    home.mkdir(parents=True)
    change(home / "state.db", "create table secrets (a); insert into secrets values ('x')")
    with pytest.raises(StateError):
        await Store.open(home)
    with pytest.raises(StateError):
        read_everything(home)


@pytest.mark.parametrize(
    "name", ["state.db", "state.db-wal", "state.db-shm", "state.db-journal", "journal.jsonl", "ballast"]
)
@pytest.mark.parametrize("fresh", [True, False], ids=["a new job", "a job that was there"])
async def test_x10_state_files_are_not_written_through_links(bench, home, tmp_path, name, fresh):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    if fresh:
        home.mkdir(parents=True)
    else:
        await made(bench)
    (home / name).unlink(missing_ok=True)
    (home / name).symlink_to(victim)
    with suppress(DiskError, StateError):
        async with bench() as one:
            await one.add(7)
    assert victim.read_text() == "precious"


HOSTILE = ("' or 1=1 --", "'; drop table task; --", "%", "_", '"', "\\", "*", "[a-z]", "\x00", "\ud800", "")


async def test_x33_key_text_is_no_statement_and_no_pattern(bench):
    async with bench() as one:
        await one.add(1, 2)
        for text in HOSTILE[:-2]:
            assert await one.store.find_by_key_prefix(text) == [], text
        assert one.sql("select count(*) from task") == [(2,)]


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.sampled_from([text for text in HOSTILE if text.isascii()]) | st.text(max_size=30))
async def test_x33_manifest_text_is_stored_unchanged(tmp_path_factory, bench, text):
    async with bench(tmp_path_factory.mktemp("job") / ".runner") as one:
        await one.add(5, digest=f"d{text}", vars={"v": text}, request={"p": text}, provider=text, model=text)
        with open_read_only(one.path.parent) as job:
            (row,) = job.results()
    assert (row["request"], row["vars"], row["provider"], row["model"]) == ({"p": text}, {"v": text}, text, text)


def test_x33_statements_are_not_built_from_text():
    """Every statement is a constant. An f-string or a concatenation as SQL would let text in."""
    calls = {"execute", "executemany", "executescript"}
    for path in sorted((Path(runner.__file__).parent / "store").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in calls:
                made = isinstance(node.args[0], ast.JoinedStr | ast.BinOp)
                assert not made or path.name == "database.py", f"{path.name}:{node.lineno}"


LINES = (
    {},
    {"t": 1},
    {"t": "epoch"},
    {"t": "id", "ref": "x", "remote_id": 7, "adopted": False},
    {"t": "intent", "ref": "x", "key": "y"},
    {"t": "id", "ref": "x", "remote_id": "y", "adopted": False, "key": "z"},
    {"t": "saved", "ref": "x", "files": [{"file": 1}], "reason": None},
    {"t": "retry", "ref": "x", "generation": 2**64 - 1, "next": "y"},
    {"t": "settle", "ref": ["x"]},
)


@pytest.mark.parametrize("line", LINES)
async def test_x34_forged_journal_line_is_not_replayed(bench, line):
    path = await made(bench)
    with (path.parent / "journal.jsonl").open("ab") as out:
        out.write(journal.encode(line))
    with pytest.raises(StateError):
        rebuild(path.parent, (), NOW)
    with pytest.raises(StateError):
        await Store.open(path.parent)
