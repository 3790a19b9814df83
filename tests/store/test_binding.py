"""Marks of files that no copy carries, and the binding of a state to them."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from runner.errors import StateError
from runner.store import binding
from runner.store.binding import Binding, FileMark, machine_hash, mark_file, observe, read_binding, write_binding

MARK = FileMark(7, 11, None, 1, 100)


def _copy(file: Path, kept: Path) -> None:
    subprocess.run(["cp", "-a", kept, file], check=True)


def _extract(file: Path, kept: Path) -> None:
    subprocess.run(["tar", "cf", kept.with_suffix(".tar"), "-C", kept.parent, kept.name], check=True)
    subprocess.run(["tar", "xf", kept.with_suffix(".tar"), "-C", file.parent], check=True)
    (file.parent / kept.name).rename(file)


def _move(file: Path, kept: Path) -> None:
    kept.rename(file)


@pytest.mark.parametrize("restore", [_copy, _extract, _move])
def test_restored_file_is_another_one(tmp_path, restore):
    """The inode number of the original is free again, and may be used for the copy."""
    file, kept = tmp_path / "journal.jsonl", tmp_path / "kept"
    file.write_text("one")
    before = mark_file(file)
    shutil.copy2(file, kept)
    file.unlink()
    restore(file, kept)
    assert not before.is_same(mark_file(file))


def test_renamed_and_written_file_is_the_same(tmp_path):
    file = tmp_path / "one" / "journal.jsonl"
    file.parent.mkdir()
    file.write_text("one")
    before = mark_file(file)
    file.parent.rename(tmp_path / "two")
    (tmp_path / "two" / "journal.jsonl").write_text("longer than before")
    os.link(tmp_path / "two" / "journal.jsonl", tmp_path / "two" / "link")
    assert before.is_same(mark_file(tmp_path / "two" / "journal.jsonl"))
    assert before.is_lasting


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a tmpfs")
def test_birth_time_stands_in_for_a_generation(tmp_path):
    """A tmpfs has no generation."""
    file = Path("/dev/shm") / f"runner-test-{os.getpid()}"
    try:
        file.write_text("one")
        mark = mark_file(file)
        assert mark.generation is None
        assert mark.born is not None
        assert not mark_file(tmp_path / "gone")
        shutil.copy2(file, tmp_path / "copy")
        assert mark_file(tmp_path / "copy").is_on_other_disk(mark)
        assert not mark_file(tmp_path / "copy").is_same(mark)
    finally:
        file.unlink()


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (replace(MARK, device=9), True),
        (replace(MARK, device=9, filesystem=900), True),
        (replace(MARK, generation=12), False),
        (replace(MARK, inode=8), False),
        (FileMark(None, None, None, 9, 900), False),
        (FileMark(None, None, None, 9, 0), True),
        (FileMark(None, None, 5, 1, 100), True),
    ],
    ids=["new boot", "bind mount", "inode used again", "copy", "disk without marks", "unknown", "nothing in common"],
)
def test_what_decides_whether_a_file_is_the_same(other, same):
    assert MARK.is_same(other) is same
    assert other.is_same(MARK) is same


def test_inode_that_a_mount_changes_does_not_count(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(binding.filesystem, "filesystem_kind", lambda _: "fuse.sshfs")
    mark = mark_file(tmp_path / "file")
    assert (mark.inode, mark.generation) == (None, None)
    monkeypatch.setattr(binding, "_birth", lambda _: None)
    assert not mark_file(tmp_path / "file").is_lasting


def test_differences_name_what_is_not_as_it_was():
    known = Binding("/a", 1.0, "m", MARK, MARK, {"one": MARK, "two": MARK})
    assert known.differences(known) == []
    assert known.differences(replace(known, directory="/b", at=2.0, registers={})) == []
    assert known.differences(replace(known, machine=None)) == []
    other = replace(MARK, inode=1)
    assert known.differences(replace(known, journal=other)) == [], "it was recovered"
    assert known.differences(replace(known, database=other)) == []
    assert known.differences(replace(known, journal=other, database=other)) == ["state"]
    assert known.differences(replace(known, registers={"two": None, "three": MARK})) == ["register"]
    assert known.differences(replace(known, machine="n", journal=None, database=None)) == ["state", "machine"]


def test_binding_is_stored(tmp_path):
    (tmp_path / "journal.jsonl").write_text("")
    seen = observe(tmp_path, "/job", {"one": tmp_path / "journal.jsonl", "two": tmp_path / "gone"}, 3.0, machine="m")
    assert read_binding(tmp_path) is None
    write_binding(tmp_path, seen)
    assert read_binding(tmp_path) == seen
    assert (tmp_path / "binding.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"directory": "", "at": 0, "machine": 3, "registers": {}}', "{"])
def test_damaged_binding_is_refused(tmp_path, text):
    (tmp_path / "binding.json").write_text(text)
    with pytest.raises(StateError, match=r"binding\.json"):
        read_binding(tmp_path)


@pytest.mark.parametrize(("text", "known"), [("0" * 32 + "\n", True), ("uninitialized\n", False), ("", False)])
def test_machine_without_an_id_has_no_hash(tmp_path, monkeypatch, text, known):
    (tmp_path / "id").write_text(text)
    assert (machine_hash(tmp_path / "id") is not None) is known
    assert machine_hash(tmp_path / "gone") is None
    monkeypatch.setattr(binding.filesystem, "filesystem_kind", lambda _: "overlay")
    assert machine_hash(tmp_path / "id") is None, "it ends with its container"
