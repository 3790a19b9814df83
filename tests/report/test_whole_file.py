from __future__ import annotations

import pytest

from runner.report.whole_file import whole_file


def test_file_is_replaced_when_the_block_ends(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    with whole_file(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.csv"]


def test_failed_block_leaves_the_old_file_only(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")

    def fail():
        with whole_file(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.csv"]


def test_planted_link_is_not_followed(tmp_path):
    target, path = tmp_path / "theirs", tmp_path / "a.csv"
    target.write_text("theirs")
    path.symlink_to(target)
    with whole_file(path) as file:
        file.write(b"ours")
    assert target.read_text() == "theirs"
    assert path.read_text() == "ours"
    assert not path.is_symlink()
