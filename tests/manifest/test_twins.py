"""What was seen is known again by all of its 16 bytes, and by nothing else."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from runner.manifest.twins import Twins

HEAD = b"ab"


@pytest.fixture
def twins():
    return Twins(SimpleNamespace(words=lambda spot: f"line {spot.row.line}"), rows=True)


def at(line):
    return SimpleNamespace(row=SimpleNamespace(line=line))


def test_each_of_many_is_known_with_the_line_of_its_first(twins):
    digests = [HEAD + bytes([n]) + bytes(13) for n in range(200)]
    for line, digest in enumerate(digests, start=70_000):
        assert not twins.merge(digest, at(1))
        twins.keep(digest, at(line), 1)
    assert [twins._place(digest) for digest in digests] == list(range(70_000, 70_200))


def test_one_that_stands_across_two_others_is_new(twins):
    first, second = HEAD + bytes(range(14)), HEAD + bytes(range(20, 34))
    twins.keep(first, at(3), 1)
    twins.keep(second, at(4), 2)
    stored = twins._buckets[HEAD]
    for begin in range(1, len(first) - len(HEAD) + 5):
        assert not twins.merge(HEAD + bytes(stored[begin : begin + 14]), at(9)), begin
    assert twins.merge(second, at(9))


def test_one_that_also_stands_across_others_is_found(twins):
    """The place that means nothing comes first, the right one behind it."""
    inner = bytes(range(100, 114))
    twins.keep(HEAD + bytes(7) + inner[:7], at(int.from_bytes(inner[7:12], "big")), 1)
    twins.keep(HEAD + inner[12:] + bytes(12), at(5), 2)
    twins.keep(HEAD + inner, at(6), 3)
    assert twins._buckets[HEAD].find(inner) == 7
    assert twins._place(HEAD + inner) == 6
