"""A digest is found again by all of its 16 bytes, and by nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from runner.manifest.lint import Duplicates

HEAD = b"ab"
KEY = bytes(16)


@pytest.fixture
def duplicates():
    return Duplicates(Mock(), by_row=True)


def combination(line):
    return SimpleNamespace(row=SimpleNamespace(line=line))


def first_seen(duplicates, goods):
    """Return the line that a merge with these goods would name."""
    array, at = duplicates._find(goods)
    return int.from_bytes(array[at + 14 : at + 19], "big")


def test_many_digests_keep_their_first_line(duplicates):
    digests = [HEAD + bytes([n]) + bytes(13) for n in range(200)]
    for line, digest in enumerate(digests, start=70_000):
        assert not duplicates.merge_if_known(digest, KEY, combination(1))
        duplicates.remember(digest, KEY, combination(line), 1)
    assert [first_seen(duplicates, digest) for digest in digests] == list(range(70_000, 70_200))


def test_match_across_two_records_is_new(duplicates):
    first, second = HEAD + bytes(range(14)), HEAD + bytes(range(20, 34))
    duplicates.remember(first, KEY, combination(3), 1)
    duplicates.remember(second, KEY, combination(4), 2)
    stored = duplicates._arrays[HEAD]
    for begin in range(1, len(first) - len(HEAD) + 7):
        assert not duplicates.merge_if_known(HEAD + bytes(stored[begin : begin + 14]), KEY, combination(9)), begin
    assert duplicates.merge_if_known(second, KEY, combination(9))


def test_digest_is_found_behind_a_match_across_records(duplicates):
    """The match across two records comes first, the right one behind it."""
    inner = bytes(range(100, 114))
    number = combination(int.from_bytes(inner[5:10], "big"))
    duplicates.remember(HEAD + bytes(9) + inner[:5], inner[10:12] + bytes(14), number, 1)
    duplicates.remember(HEAD + inner[12:] + bytes(12), KEY, combination(5), 2)
    duplicates.remember(HEAD + inner, KEY, combination(6), 3)
    assert duplicates._arrays[HEAD].find(inner) == 9
    assert first_seen(duplicates, HEAD + inner) == 6
