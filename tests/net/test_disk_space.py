"""Space that outputs need, compared with the free space of the disk."""

import pytest

from runner.errors import DiskError
from runner.net.disk_space import RESERVE, FreeSpace, free_bytes, free_files

MB = 2**20


def test_space_is_needed_for_outputs_and_the_reserve(tmp_path):
    left = RESERVE + 40 * MB
    space = FreeSpace(tmp_path, lambda _: left)
    assert space.has_space_for(10)
    assert not space.has_space_for(11)
    for _ in range(100):
        space.record_output(MB)
    assert space.has_space_for(30)
    assert not space.has_space_for(50)


def test_new_sizes_count_more_than_old_ones(tmp_path):
    space = FreeSpace(tmp_path)
    for _ in range(2000):
        space.record_output(MB)
    for _ in range(1000):
        space.record_output(50 * MB)
    assert space.expected_size == pytest.approx(50 * MB, rel=0.1)
    assert repr(space).startswith("FreeSpace(4")


def test_free_space_and_shortage_message(tmp_path):
    assert free_bytes(tmp_path) > 0
    assert FreeSpace(tmp_path).has_space_for(1) == (free_bytes(tmp_path) > RESERVE + 4 * MB)
    short = FreeSpace(tmp_path, lambda _: 3 * MB)
    assert not short.has_space_for(0)
    assert f"{tmp_path} has 3 MB left: make room" in short.shortage()


def test_unknown_free_space_is_no_obstacle(tmp_path):
    assert FreeSpace(tmp_path, lambda _: None).has_space_for(10**9)


@pytest.mark.parametrize(("files", "fits"), [(None, True), (10**6, True), (110, True), (109, False), (0, False)])
def test_disk_without_free_files_takes_no_output(tmp_path, files, fits):
    """A disk may have room for bytes and none for one more file (inodes)."""
    space = FreeSpace(tmp_path, lambda _: 10**12, lambda _: files)
    assert space.has_space_for(10) is fits
    if files == 0:
        assert "takes only 0 more files (inodes)" in space.shortage()


def test_this_disk_has_free_files_or_makes_them(tmp_path):
    files = free_files(tmp_path)
    assert files is None or files > 100
    with pytest.raises(DiskError):
        free_files(tmp_path / "gone")
