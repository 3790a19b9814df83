from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import StateError
from runner.store import database
from runner.store.task_rows import Addition, check_output_name, next_page, output_from, task_columns, task_from
from runner.tasks.models import NO_ERROR, Draft, Moment, Output, State, Task, TaskError

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30)
TIMES = st.none() | st.floats(0, 4e9, allow_nan=False)
COUNTS = st.integers(0, 2**31)
ERRORS = st.just(NO_ERROR) | st.builds(TaskError, TEXT, st.none() | TEXT, st.none() | TEXT)
MOMENTS = st.builds(Moment, TEXT, st.floats(0, 1e9))
UNPAID = {State.QUEUED, State.SUBMITTING, State.IN_DOUBT, State.HELD}
HOT = {
    "due_at": TIMES, "ref": TEXT, "attempts": COUNTS, "throttles": COUNTS, "doubts": COUNTS, "absences": COUNTS,
    "failures": COUNTS, "refreshes": COUNTS, "adopted": st.booleans(), "submitted_at": TIMES, "since": TIMES,
    "finished_at": TIMES, "error": ERRORS, "reason": TEXT, "generation": st.integers(1, 99),
}  # fmt: skip


def draft_with(text):
    return Addition(Draft("k", 1, 1, {"note": text}, "kling", "image", "m", {"image": text}, "", 1, ""), "")


@pytest.mark.parametrize(("length", "sizes"), [(10, [4, 4, 2]), (9 << 20, [4, 4, 2]), (20 << 20, [2, 2, 2, 2, 2, 0])])
def test_pages_are_bounded_by_the_length_of_values(length, sizes):
    """An image may stand in a cell, and a page of ten thousand would fill the memory."""
    additions, is_last, found = iter([draft_with("x" * length)] * 10), False, []
    while not is_last:
        page, is_last = next_page(additions, 4)
        found.append(len(page))
    assert found == sizes


@pytest.mark.parametrize("file", ["0001-boat.png", "3f/0001-boat.png", "abc/猫.png", "ab.png"])
def test_outputs_stand_in_the_job_directory_or_its_shards(file):
    assert check_output_name(file) == file


SHARDLIKE = [
    *("3f/", "3f/.png", "3f/../x.png", "3f//x.png", "3f/3f/x.png", "/3f/x.png", "../3f/x.png", "3F/x.png", "3g/x.png"),
    *("abcd/x.png", "3/x.png", "3f/x/y.png", "3f/\0.png", "3f/..", "gallery/x.png", ".runner/x.png", "３f/x.png"),
]


@pytest.mark.parametrize("file", SHARDLIKE)
def test_nothing_else_looks_like_a_shard(file):
    with pytest.raises(StateError, match="no output of a job is called so"):
        check_output_name(file)


@st.composite
def tasks(draw):
    state = draw(st.sampled_from(State))
    sent = draw(MOMENTS if state is State.SUBMITTING else st.none() | MOMENTS)
    remote_id = None if state in UNPAID else "u-1" if state is not State.FAILED else draw(st.none() | st.just("u-1"))
    hot = {name: draw(values) for name, values in HOT.items()}
    return Task(1, "ab" * 16, "p", "image", "m", state, sent=sent, remote_id=remote_id, request=b"{}", name="n", **hot)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(tasks())
def test_task_survives_the_way_through_a_row(task):
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        database.migrate(connection)
        connection.execute(
            """insert into task (id, key, provider, operation, model, state, ref)
                 values (1, ?, 'p', 'image', 'm', 'queued', '')""",
            (task.key,),
        )
        connection.execute("insert into draft values (1, 1, 1, '{}', '{}', 'n', 0, null)")
        guard = {"expected_state": State.QUEUED, "expected_generation": 1}
        assert connection.execute(database.statements()["settle"], task_columns(task) | guard).rowcount == 1
        row = connection.execute(database.statements()["by_key"], {"key": task.key}).fetchone()
        assert task_from(row) == task


def test_every_changing_field_is_written_back():
    """A field that is added to Task and forgotten here would be lost at every settle."""
    made = {"provider", "operation", "model", "goods", "fingerprint", "slots", "cost", "images"}
    cold = {"key", "request", "name", "outputs", *made}
    spread = {
        "sent": {"sent_boot", "sent_seconds"},
        "error": {"reason", "code", "message"},
        "reason": {"evidence"},
        "absences": {"looks"},
    }
    wanted = set()
    for field in fields(Task):
        if field.name not in cold:
            wanted |= spread.get(field.name, {field.name})
    assert set(task_columns(Task(1, "k", "p", "o", "m", State.QUEUED, None))) == wanted


def test_output_survives_the_way_through_a_row():
    output = Output(2, "https://files.example/2.png", "boat-2.png", 10, "ab" * 32, "image/png")
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.row_factory = sqlite3.Row
        named = ", ".join(f"? as {field.name}" for field in fields(Output))
        values = [getattr(output, field.name) for field in fields(Output)]
        assert output_from(connection.execute(f"select {named}", values).fetchone()) == output
