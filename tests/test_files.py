from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from runner.files import NotRegularFileError, atomic_write, copy_file, create_file, open_file, open_to_read


def test_file_is_replaced_when_the_block_ends(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    with atomic_write(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.csv"]


def test_failed_block_leaves_the_old_file_only(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")

    def fail():
        with atomic_write(path) as file:
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
    with atomic_write(path) as file:
        file.write(b"ours")
    assert target.read_text() == "theirs"
    assert path.read_text() == "ours"
    assert not path.is_symlink()


def test_name_of_the_longest_length_can_be_replaced(tmp_path):
    path = tmp_path / ("青" * 85)
    with atomic_write(path) as file:
        file.write(b"x")
    assert path.read_bytes() == b"x"


def test_link_is_followed_only_on_request(tmp_path):
    (tmp_path / "theirs").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is what counts
        open_to_read(tmp_path / "link")
    assert caught.value.errno == errno.ELOOP
    with open_to_read(tmp_path / "link", follow_links=True) as file:
        assert file.read() == b"x"


@pytest.mark.parametrize("kind", ["pipe", "directory"])
def test_only_a_regular_file_is_opened(tmp_path, kind):
    """A pipe without a writer is not waited for, and no descriptor is left."""
    path = tmp_path / kind
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    before = sorted(Path("/proc/self/fd").iterdir())
    with pytest.raises(NotRegularFileError, match="not a plain file"):
        open_to_read(path)
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_new_file_is_private(tmp_path):
    os.close(open_file(tmp_path / "a", os.O_RDWR | os.O_CREAT))
    create_file(tmp_path / "b").close()
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "b")} == {0o600}


def test_existing_file_or_link_is_never_created_over(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError):
            create_file(tmp_path / name)
        with pytest.raises(FileExistsError):
            copy_file(tmp_path / "file", tmp_path / name)
    assert (tmp_path / "file").read_bytes() == b"x"
    assert not (tmp_path / "nothing").exists()


def test_failed_copy_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        copy_file(tmp_path / "nothing", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []
