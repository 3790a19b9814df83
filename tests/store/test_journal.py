"""The journal recovers a prefix, whatever happened to its end, and never invents an id."""

import contextlib
import json
import os
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.errors import DiskError, StateError
from runner.store import journal, recovery
from runner.store.journal import Journal, decode, encode, read_lines, read_tail
from runner.tasks.events import (
    Accepted,
    AccountBlocked,
    Found,
    Interrupted,
    Missing,
    Rejected,
    Resolved,
    Retried,
    RetryableFailure,
)
from runner.tasks.models import Moment, State, Task, TaskError
from runner.tasks.retry_policy import RetryPolicy
from runner.tasks.transitions import advance

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
LINES = st.lists(
    st.one_of(
        st.fixed_dictionaries({"t": st.just("intent"), "ref": TEXT, "key": TEXT}),
        st.fixed_dictionaries({"t": st.just("id"), "ref": TEXT, "remote_id": TEXT, "adopted": st.booleans()}),
        st.fixed_dictionaries({"t": st.just("settle"), "ref": TEXT, "state": st.sampled_from(["queued", "failed"])}),
    ),
    max_size=8,
)
FILES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@given(LINES)
def test_decode_inverts_encode(lines):
    assert [decode(encode(line)) for line in lines] == lines


@FILES
@given(lines=LINES, cut=st.floats(0, 1))
def test_cut_journal_gives_its_complete_lines(tmp_path, lines, cut):
    path = tmp_path / "journal.jsonl"
    whole = b"".join(map(encode, lines))
    kept = whole[: int(len(whole) * cut)]
    path.write_bytes(kept)
    found = [line for line, _ in read_lines(path)]
    assert found == lines[: kept.count(b"\n")]
    assert read_tail(path, 0).end == kept.rfind(b"\n") + 1


@FILES
@given(lines=LINES.filter(bool), position=st.floats(0, 0.999), bit=st.integers(0, 7))
def test_flipped_bit_is_never_read_as_another_line(tmp_path, lines, position, bit):
    path = tmp_path / "journal.jsonl"
    data = bytearray(b"".join(map(encode, lines)))
    data[int(len(data) * position)] ^= 1 << bit
    path.write_bytes(bytes(data))
    found = []
    with contextlib.suppress(StateError):
        for line, _ in read_lines(path):
            found.append(line)
    # upper case in a checksum is the same checksum; apart from that every line is one that was written
    assert [json.dumps(line) for line in found] == [json.dumps(line) for line in lines[: len(found)]]


@given(st.binary(max_size=200))
def test_any_bytes_decode_to_a_line_or_none(raw):
    line = decode(raw)
    assert line is None or isinstance(line, dict)


def test_append_is_on_disk_and_cuts_off_a_torn_end(tmp_path):
    path = tmp_path / "journal.jsonl"
    first = encode({"t": "epoch", "uuid": "u", "epoch": 1})
    path.write_bytes(first + b'00000000 {"t":"int')
    opened = Journal(path, read_tail(path, 0).end)
    end = opened.append([{"t": "id", "ref": "r", "remote_id": "1"}])
    opened.close()
    assert [line["t"] for line, _ in read_lines(path)] == ["epoch", "id"]
    assert end == path.stat().st_size


def test_leftover_half_line_is_removed_before_the_next(tmp_path):
    """Otherwise the journal would have a damaged line before its end, and no start would read it."""
    path = tmp_path / "journal.jsonl"
    opened, file = Journal(path, 0), os.open("/dev/full", os.O_WRONLY)
    opened.append([{"t": "epoch", "uuid": "u", "epoch": 1}])
    opened._file, file = file, opened._file
    with pytest.raises(DiskError):
        opened.append([{"t": "id", "ref": "r", "remote_id": "1"}])
    opened._file, file = file, opened._file
    os.close(file)
    with path.open("ab") as half:
        half.write(b"0badc0de {")
    assert opened.append([{"t": "id", "ref": "r", "remote_id": "1"}]) == path.stat().st_size
    opened.close()
    assert [line["t"] for line, _ in read_lines(path)] == ["epoch", "id"]


def test_new_journal_is_private(tmp_path):
    Journal(tmp_path / "journal.jsonl", 0).close()
    assert (tmp_path / "journal.jsonl").stat().st_mode & 0o777 == 0o600


def test_damage_before_the_end_is_reported_with_offset(tmp_path):
    path = tmp_path / "journal.jsonl"
    good = encode({"t": "epoch", "uuid": "u", "epoch": 1})
    path.write_bytes(good + b"rubbish\n" + good)
    with pytest.raises(StateError, match=f"byte {len(good)}"):
        list(read_lines(path))


def task(state: State, **more) -> Task:
    return Task(1, "k", "kling", "image", "m", state, None, ref="r-k-g1", sent=Moment("b", 1.0), request=b"{}", **more)


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (task(State.QUEUED), task(State.SUBMITTING), "intent"),
        (task(State.SUBMITTING), task(State.RUNNING, remote_id="x"), "id"),
        (task(State.IN_DOUBT), task(State.RUNNING, remote_id="x", adopted=True), "id"),
        (task(State.IN_DOUBT), task(State.QUEUED), "settle"),
        (task(State.SUBMITTING), task(State.FAILED), "settle"),
        (task(State.READY, remote_id="x"), task(State.DONE, remote_id="x"), "saved"),
        (task(State.RUNNING, remote_id="x"), task(State.RUNNING, remote_id="y", adopted=True), "id"),
        (task(State.SUBMITTING), task(State.HELD), "held"),
        (task(State.IN_DOUBT), task(State.HELD), "held"),
        (task(State.RUNNING, remote_id="x"), task(State.HELD), "held"),
        (task(State.SUBMITTING), task(State.IN_DOUBT), None),
        (task(State.RUNNING, remote_id="x"), task(State.READY, remote_id="x"), None),
    ],
)
def test_every_paid_change_has_its_line(before, after, kind):
    line = journal.line_for_change(before, after)
    assert (line and line["t"]) == kind


BUSY = TaskError("trouble", None, "tired")
COUNTERS = {
    "attempts": 1,
    "throttles": 2,
    "doubts": 1,
    "absences": 1,
    "failures": 1,
    "refreshes": 1,
    "cost": 4.0,
    "spent": 4.0,
}


@pytest.mark.parametrize(
    ("before", "event"),
    [
        (task(State.SUBMITTING, **COUNTERS), Accepted("x", "trace")),
        (task(State.SUBMITTING, **COUNTERS), RetryableFailure("trouble", BUSY)),
        (task(State.SUBMITTING, **COUNTERS), RetryableFailure("throttled", BUSY)),
        (task(State.SUBMITTING, **COUNTERS), AccountBlocked("credit", BUSY)),
        (task(State.SUBMITTING, **COUNTERS), Rejected(BUSY)),
        (task(State.SUBMITTING, **COUNTERS), Interrupted("an id of no shape", hopeless=True)),
        (task(State.IN_DOUBT, **COUNTERS), Found("x")),
        (task(State.IN_DOUBT, **COUNTERS), Missing(quiet=True)),
        (task(State.IN_DOUBT, **COUNTERS), Missing(quiet=True, provable=False)),
        (task(State.HELD, **COUNTERS), Resolved("adopt", "ann", "x")),
        (task(State.HELD, **COUNTERS), Resolved("absent", "ann")),
        (task(State.HELD, **COUNTERS), Resolved("abandon", "ann")),
        (
            task(State.RUNNING, remote_id="x", adopted=True, reason="adopt by ann", **COUNTERS),
            RetryableFailure("absent", BUSY),
        ),
        (task(State.RUNNING, remote_id="x", adopted=True, **COUNTERS), Resolved("adopt", "ann", "y")),
        (task(State.RUNNING, remote_id="x", adopted=True, **COUNTERS), Resolved("absent", "ann")),
        (task(State.RUNNING, remote_id="x", **COUNTERS), Rejected(BUSY, billed=False)),
        (task(State.FAILED, remote_id="x", **COUNTERS), Retried()),
    ],
)
def test_applied_line_equals_the_transition(before, event):
    """Except for times, and for the counters that a start resets."""
    after = advance(before, event, 9.0, RetryPolicy(required_absences=1, max_unknown=1))
    applied = recovery.apply(before, journal.line_for_change(before, after))
    reset = {"due_at": None, "since": None, "finished_at": None, "absences": 0, "failures": 0}
    if after.state is not State.RUNNING:
        reset["sent"] = None
    assert replace(applied, **reset) == replace(after, **reset)


def test_intent_alone_is_a_submit_without_answer():
    intent = journal.line_for_change(task(State.QUEUED), task(State.SUBMITTING))
    id_ = journal.line_for_change(task(State.SUBMITTING), task(State.RUNNING, remote_id="x"))
    merged = recovery.apply(task(State.QUEUED), intent)
    assert (merged.state, merged.remote_id) == (State.SUBMITTING, None)
    assert recovery.apply(merged, id_).remote_id == "x"


def test_request_with_an_image_is_read_back(tmp_path):
    """An image in a cell stands in its request: the line of what was sent must not look damaged after a crash."""
    path = tmp_path / "journal.jsonl"
    image = "A" * (14 << 20)
    sent = replace(task(State.SUBMITTING), request=image.encode(), sent=Moment("boot", 5.0), submitted_at=1_000.0)
    lines = [journal.line_for_change(task(State.QUEUED), sent)]
    lines.append({"t": "id", "ref": sent.ref, "remote_id": "t1", "adopted": False})
    path.write_bytes(b"".join(map(encode, lines)))
    assert [line["t"] for line, _ in read_lines(path)] == ["intent", "id"]
    assert next(read_lines(path))[0]["request"] == image
    assert journal.last_send(path) == (1_000.0, Moment("boot", 5.0))
