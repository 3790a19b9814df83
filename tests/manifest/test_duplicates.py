"""A digest is found again by all of its 16 bytes, and by nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from runner.manifest.lint import Duplicates

HEAD = b"ab"


@pytest.fixture
def duplicates():
    return Duplicates(Mock(), by_row=True)


def combination(line):
    return SimpleNamespace(row=SimpleNamespace(line=line))


def test_many_digests_keep_their_first_line(duplicates):
    digests = [HEAD + bytes([n]) + bytes(13) for n in range(200)]
    for line, digest in enumerate(digests, start=70_000):
        assert not duplicates.merge_if_known(digest, combination(1))
        duplicates.remember(digest, combination(line), 1)
    assert [duplicates._first_seen(digest) for digest in digests] == list(range(70_000, 70_200))


def test_match_across_two_records_is_new(duplicates):
    first, second = HEAD + bytes(range(14)), HEAD + bytes(range(20, 34))
    duplicates.remember(first, combination(3), 1)
    duplicates.remember(second, combination(4), 2)
    stored = duplicates._arrays[HEAD]
    for begin in range(1, len(first) - len(HEAD) + 5):
        assert not duplicates.merge_if_known(HEAD + bytes(stored[begin : begin + 14]), combination(9)), begin
    assert duplicates.merge_if_known(second, combination(9))


def test_digest_is_found_behind_a_match_across_records(duplicates):
    """The match across two records comes first, the right one behind it."""
    inner = bytes(range(100, 114))
    duplicates.remember(HEAD + bytes(7) + inner[:7], combination(int.from_bytes(inner[7:12], "big")), 1)
    duplicates.remember(HEAD + inner[12:] + bytes(12), combination(5), 2)
    duplicates.remember(HEAD + inner, combination(6), 3)
    assert duplicates._arrays[HEAD].find(inner) == 7
    assert duplicates._first_seen(HEAD + inner) == 6
