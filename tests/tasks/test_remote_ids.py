"""Ids are opaque: what a provider gives comes back unchanged from every place that it passes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from urllib.parse import unquote

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.net.client import _PLAIN_PATH
from runner.providers.requests import Dialect
from runner.providers.spec import load
from runner.store.journal import decode, encode
from runner.tasks.models import State, Task
from runner.tasks.remote_ids import MAX_BYTES, parse_remote_id, read_remote_id, show_remote_id

#: ids as providers give them, and as nobody would
AWKWARD = ("7", "a/b", "a b", "%2F", "a%b", "a?b=c&d#e", "纸船/1", "A", "a", " a ", "\n", "\x1b[31mred", "\u202eevil")
AWKWARD += ('"', '"a"', '"\\u0041"', "--adopt", "'; drop table task; --", "é", "e\u0301", "\u3000x", "x" * MAX_BYTES)
IDS = st.sampled_from(AWKWARD) | st.text(max_size=60) | st.integers().map(str)
USABLE = IDS.filter(lambda text: parse_remote_id(text) is not None)


@given(remote_id=USABLE)
def test_shown_id_is_safe_and_is_read_back(remote_id):
    shown = show_remote_id(remote_id)
    assert shown.isprintable()
    assert read_remote_id(shown) == remote_id


@given(remote_id=USABLE)
@pytest.mark.parametrize("provider", ["kling", "kling-gateway"])
def test_id_in_a_url_is_the_id(provider, remote_id):
    """Whichever way the client builds the URL, the last segment of its path is the id and nothing else."""
    task = Task(1, "k" * 32, provider, "image", "m", State.RUNNING, 0.0, remote_id=remote_id)
    path = Dialect(load(provider)).query(task).path
    assert unquote(path.rpartition("/")[2]) == remote_id
    url = httpx.URL("https://host.example/base" + path)
    sent = url.raw_path.decode()
    assert unquote(sent.rpartition("/")[2]) == remote_id
    assert sent.count("/") == path.count("/") + 1
    assert _PLAIN_PATH.fullmatch(path) is None or sent == f"/base{path}"


@given(remote_id=USABLE)
def test_id_in_a_journal_line_is_the_id(remote_id):
    line = {"t": "id", "ref": "r", "remote_id": remote_id, "adopted": False}
    assert decode(encode(line)) == line


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(USABLE, max_size=8, unique=True))
def test_database_tells_ids_apart(ids):
    """Two ids that differ in case or in form alone are two; a query that compares lists of ids finds exactly those."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("create table claim (remote_id text primary key) strict, without rowid")
        connection.executemany("insert into claim values (?)", [(each,) for each in ids])
        query = "select remote_id from claim where remote_id in (select value from json_each(?))"
        for each in ids:
            assert connection.execute(query, (orjson.dumps([each]).decode(),)).fetchall() == [(each,)]


@pytest.mark.parametrize("text", ["", "  ", "..", '"', "x" * (MAX_BYTES + 1)])
def test_typed_text_that_is_no_id(text):
    assert read_remote_id(text) is None or text == '"'
