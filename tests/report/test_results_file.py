"""The new results.jsonl from the old one: the same bytes as if every line had been written anew, or none at all."""

from __future__ import annotations

import os
import random

import pytest

from runner.report import results
from runner.report.results_file import ResultsIndex, UnfitIndexError, write_all, write_changes


def row(task_id, state="queued", size=0):
    return {
        "id": task_id, "key": f"{task_id:032x}", "position": task_id, "repeat": 1, "vars": {"猫": "x" * size},
        "provider": "p", "model": "m", "request": {"prompt": f"boat {task_id}"}, "state": state, "remote_id": None,
        "reason": None, "code": None, "message": None, "attempts": 0, "doubts": 0, "cost": None, "spent": 0.0,
        "queued_at": 0.0, "submitted_at": None, "finished_at": None, "outputs": [],
    }  # fmt: skip


def go_on(_part):
    pass


class Made:
    """Rows, the file that was written of them, and its index."""

    def __init__(self, directory, rows):
        self.rows = {each["id"]: each for each in rows}
        self.order = [each["id"] for each in rows]
        self.path, self.index_path = directory / "results.jsonl", directory / "results.index"
        self.save(write_all(self.path, [rows], len(rows), go_on))

    def save(self, index):
        index.write(self.index_path)
        self.index = index

    def read(self):
        return ResultsIndex.read(self.index_path, self.path, len(self.rows))

    def rows_of(self, ids):
        return [self.rows[each] for each in ids if each in self.rows]

    def write(self, changed, on_step=go_on):
        self.save(write_changes(self.path, self.read(), changed, self.rows_of, on_step))

    def expected(self, directory):
        path = directory / "expected.jsonl"
        results.write(path, [self.rows[each] for each in self.order])
        return path.read_bytes()


@pytest.fixture
def made(tmp_path):
    # ids are in no order, as when a row was added to an older job
    return Made(tmp_path, [row(each) for each in (7, 2, 9, 1, 5)])


@pytest.mark.parametrize("changed", [(), (7,), (5,), (2, 9), (7, 2, 9, 1, 5), (1, 7)])
def test_changed_lines_and_copies_are_the_whole_file(made, tmp_path, changed):
    for each in changed:
        made.rows[each] = row(each, "done", size=each)
    made.write(changed)
    assert made.path.read_bytes() == made.expected(tmp_path)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("can_copy", [True, False])
def test_many_rounds_of_changes_leave_the_same_bytes(tmp_path, monkeypatch, seed, can_copy):
    """Lines of up to 300 kB make ranges that go from file to file, between others that go through memory."""
    if not can_copy:
        monkeypatch.setattr(os, "copy_file_range", lambda *_, **__: (_ for _ in ()).throw(OSError(22, "no")))
    draw = random.Random(seed)
    made = Made(tmp_path, [row(each, size=draw.choice([0, 50, 300_000])) for each in range(1, 80)])
    for number in range(4):
        changed = draw.sample(made.order, draw.choice([0, 1, 3, 30]))
        for each in changed:
            made.rows[each] = row(each, f"state {number}", size=draw.choice([0, 90, 300_000]))
        made.write(changed)
        assert made.path.read_bytes() == made.expected(tmp_path), f"seed {seed}"


def test_file_of_an_older_version_is_written_anew(made):
    """Its lines lack the fields that were added since."""
    head, body = made.index_path.read_bytes().split(b"\n", 1)
    made.index_path.write_bytes(head.replace(b'"format":2', b'"format":1') + b"\n" + body)
    with pytest.raises(UnfitIndexError):
        made.read()


def spoil_nothing(_made):
    pass


def touch(made):
    os.utime(made.path, ns=(1, 1))


def replace_by_a_copy(made):
    status, data = made.path.stat(), made.path.read_bytes()
    made.path.rename(made.path.with_name("before"))
    made.path.write_bytes(data)
    os.utime(made.path, ns=(status.st_atime_ns, status.st_mtime_ns))


def cut_the_file(made):
    os.truncate(made.path, made.path.stat().st_size - 1)


def damage_the_index(made):
    data = bytearray(made.index_path.read_bytes())
    data[-1] ^= 1
    made.index_path.write_bytes(data)


def cut_the_index(made):
    made.index_path.write_bytes(made.index_path.read_bytes()[:-4])


def link_the_index(made):
    made.index_path.rename(made.index_path.with_name("elsewhere"))
    made.index_path.symlink_to(made.index_path.with_name("elsewhere"))


SPOILERS = [touch, replace_by_a_copy, cut_the_file, damage_the_index, cut_the_index, link_the_index]


@pytest.mark.parametrize("spoil", [lambda made: made.path.unlink(), lambda made: made.index_path.unlink(), *SPOILERS])
def test_index_of_another_file_is_not_believed(made, spoil):
    spoil(made)
    with pytest.raises(UnfitIndexError):
        made.read()


@pytest.mark.parametrize("text", [b"", b"[]\n", b"{}\n", b"\xff", b'{"mark": 1}\n', b'{"file":{},"format":1}\n'])
def test_index_of_other_contents_is_not_believed(made, text):
    made.index_path.write_bytes(text)
    with pytest.raises(UnfitIndexError):
        made.read()


@pytest.mark.parametrize("count", [0, 4, 6])
def test_index_of_another_number_of_tasks_is_not_believed(made, count):
    with pytest.raises(UnfitIndexError):
        ResultsIndex.read(made.index_path, made.path, count)


def test_whole_index_is_believed(made):
    index = made.read()
    assert list(index.ids) == made.order
    assert sum(index.lengths) == made.path.stat().st_size


def lose_a_row(made):
    del made.rows[9]


def exchange_two_lines(made):
    made.index.ids[0], made.index.ids[2] = made.index.ids[2], made.index.ids[0]
    made.save(made.index)


def misplace_a_line(made):
    made.index.lengths[1] += 1
    made.index.lengths[2] -= 1
    made.save(made.index)


@pytest.mark.parametrize("spoil", [lose_a_row, exchange_two_lines, misplace_a_line])
def test_line_of_another_task_is_never_replaced(made, spoil):
    before, count = made.path.read_bytes(), len(made.rows)
    spoil(made)
    index = ResultsIndex.read(made.index_path, made.path, count)
    with pytest.raises(UnfitIndexError):
        write_changes(made.path, index, [9, 5], made.rows_of, go_on)
    assert made.path.read_bytes() == before


def test_task_without_a_line_needs_all_of_them(made):
    with pytest.raises(UnfitIndexError):
        made.write([7, 8])


class EnoughError(Exception):
    pass


@pytest.mark.parametrize("whole", [True, False])
def test_work_that_is_given_up_leaves_the_old_file_only(made, whole):
    before, parts = made.path.read_bytes(), []

    def give_up(part):
        parts.append(part)
        raise EnoughError

    with pytest.raises(EnoughError):
        write_all(made.path, [made.rows.values()], 5, give_up) if whole else made.write([5], give_up)
    assert made.path.read_bytes() == before
    assert {each.name for each in made.path.parent.iterdir()} == {"results.jsonl", "results.index"}
    assert all(0 < part <= 1 for part in parts)


def test_rest_of_a_killed_process_is_removed(made, tmp_path):
    (tmp_path / ".results.jsonl.new").write_bytes(b"half")
    made.write([7])
    assert not (tmp_path / ".results.jsonl.new").exists()
    assert made.path.read_bytes() == made.expected(tmp_path)


def test_link_at_the_name_is_replaced_not_followed(made, tmp_path):
    target = tmp_path / "elsewhere"
    target.write_text("mine")
    made.path.unlink()
    made.path.symlink_to(target)
    (tmp_path / ".results.jsonl.new").symlink_to(target)
    write_all(made.path, [list(made.rows.values())], 5, go_on)
    assert target.read_text() == "mine"
    assert not made.path.is_symlink()
