"""Files of another job: linked or copied under a free name, and only with the recorded bytes."""

from __future__ import annotations

import errno
import hashlib
import os

import pytest

from runner.app.linked_files import take_over_files
from runner.tasks.models import Output, State, Task

TASK = Task(7, "abcdef01" * 4, "kling", "image", "m", State.QUEUED, 0.0, name="0001-boat")
DATA = b"an image"
OUTPUT = Output(1, "", "boat.png", len(DATA), hashlib.sha256(DATA).hexdigest(), "image/png")


@pytest.fixture
def source(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "boat.png").write_bytes(DATA)
    return tmp_path / "one"


def taken(source, *outputs, directory=None):
    return take_over_files(source, outputs or (OUTPUT,), directory or source.parent / "two", TASK)


def test_file_is_linked_under_its_name_here(source):
    (output,) = taken(source)
    assert (output.file, output.sha256, output.url) == ("0001-boat.png", OUTPUT.sha256, "")
    assert (source.parent / "two" / "0001-boat.png").samefile(source / "boat.png")
    assert list((source.parent / "two" / ".runner" / "parts").iterdir()) == []


def test_taken_name_is_kept_unless_it_has_the_same_bytes(source):
    two = source.parent / "two"
    (two / "0001-boat.png").write_bytes(b"of the user")
    (two / "0001-boat-abcdef01.png").write_bytes(DATA)
    (output,) = taken(source)
    assert output.file == "0001-boat-abcdef01.png"
    assert (two / "0001-boat.png").read_bytes() == b"of the user"
    assert len(list(two.glob("*.png"))) == 2


@pytest.mark.parametrize("damage", ["missing", "changed", "a link", "a directory", "unreadable name", "none"])
def test_file_with_other_bytes_is_not_taken(source, damage):
    file, output = source / "boat.png", OUTPUT
    if damage == "changed":
        file.write_bytes(b"an imagE")
    elif damage == "unreadable name":
        output = Output(1, "", "../two/x.png", 1, OUTPUT.sha256)
    elif damage != "none":
        file.unlink()
    if damage == "a link":
        (source / "other.png").write_bytes(DATA)
        file.symlink_to("other.png")
    if damage == "a directory":
        file.mkdir()
    if damage == "none":
        assert take_over_files(source, (), source.parent / "two", TASK) == ()
    else:
        assert taken(source, output) == ()
    assert list((source.parent / "two").glob("*.png")) == []


def test_one_bad_file_of_several_takes_none(source):
    second = Output(2, "", "gone.png", 3, "ab")
    assert taken(source, OUTPUT, second) == ()
    assert list((source.parent / "two").glob("*.png")) == []
    (source / "more.png").write_bytes(b"more")
    second = Output(2, "", "more.png", 4, hashlib.sha256(b"more").hexdigest())
    assert [each.file for each in taken(source, OUTPUT, second)] == ["0001-boat-1.png", "0001-boat-2.png"]


def test_file_is_copied_where_there_are_no_links(source, monkeypatch):
    real = os.link

    def link(old, new, **more):
        if os.fspath(old).endswith("boat.png") and "two" not in os.fspath(old):
            raise OSError(errno.EXDEV, "another disk")
        real(old, new, **more)

    monkeypatch.setattr(os, "link", link)
    (output,) = taken(source)
    copy = source.parent / "two" / output.file
    assert copy.read_bytes() == DATA
    assert not copy.samefile(source / "boat.png")
    umask = os.umask(0o077)
    os.umask(umask)
    assert copy.stat().st_mode & 0o777 == 0o666 & ~umask  # as public as its directory, like every output


def test_own_file_of_an_earlier_life_is_taken_again(source):
    """The job directory is the same, and its state was lost."""
    (output,) = taken(source, directory=source)
    assert (source / output.file).samefile(source / "boat.png")
