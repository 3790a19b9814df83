"""Space that outputs need, compared with the free space of the disk."""

import pytest

from runner.net.space import RESERVE, Space, free

MB = 2**20


def test_space_is_needed_for_outputs_and_the_reserve(tmp_path):
    left = RESERVE + 40 * MB
    space = Space(tmp_path, lambda _: left)
    assert space.has_room(10)
    assert not space.has_room(11)
    for _ in range(100):
        space.saved(MB)
    assert space.has_room(30)
    assert not space.has_room(50)


def test_new_sizes_count_more_than_old_ones(tmp_path):
    space = Space(tmp_path)
    for _ in range(2000):
        space.saved(MB)
    for _ in range(1000):
        space.saved(50 * MB)
    assert space.expected == pytest.approx(50 * MB, rel=0.1)
    assert repr(space).startswith("FreeSpace(4")


def test_free_space_and_shortage_message(tmp_path):
    assert free(tmp_path) > 0
    assert Space(tmp_path).has_room(1) == (free(tmp_path) > RESERVE + 4 * MB)
    short = Space(tmp_path, lambda _: 3 * MB)
    assert not short.has_room(0)
    assert f"{tmp_path} has 3 MB left: make room" in short.shortage()


def test_unknown_free_space_is_no_obstacle(tmp_path):
    assert Space(tmp_path, lambda _: None).has_room(10**9)
