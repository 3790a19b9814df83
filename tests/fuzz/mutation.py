"""Small damage to valid bytes, equal for equal seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

#: what readers trip over, put anywhere
TOKENS = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"{{", b"}}", b"{%", b"&a ", b"*a",
    b"<<: ", b"!!python/object:os.system ", b"---\n", b"\t", b"\r", b"[" * 70, b"{" * 70, b"9" * 30, b"-1", b"1e999",
    b"NaN", b"null", b"true", b'""', b"''", b"\n", b": ", b"- ", b"../", b"\xf0\x9f\x98\x80", b"\xe2\x80\xae",
    b"\x1b[2J", b"18446744073709551616", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff", b"IEND",
    b"moov", b"\xff\xd9",
)  # fmt: skip
#: bytes that a case may grow to
LARGEST = 64 * 1024


def mutated(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """Return `data` after one to six changes."""
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        data = _changed(data, others, chance)[:LARGEST]
    return data


def _changed(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    at, to = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    other = chance.choice(others)
    ways = (
        data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :],
        data[:at] + data[at + chance.randrange(1, 9) :],
        data[:at] + data[to:],
        data[:at] + data[at:to][:2000] * chance.randrange(2, 5) + data[to:],
        data[:at] + other[chance.randrange(len(other) + 1) :],
        data[:at],
        data[:at] + chance.choice(TOKENS) + data[at:],
        data[:at] + chance.choice(TOKENS) + data[to:],
    )
    return chance.choice(ways)


def shrunk(data: bytes, fails: Callable[[bytes], bool], *, tries: int = 400) -> bytes:
    """Return a smaller case that fails as well, by leaving out pieces."""
    size = max(1, len(data) // 2)
    while size and tries:
        at = 0
        while at < len(data) and tries:
            tries -= 1
            less = data[:at] + data[at + size :]
            if fails(less):
                data = less
            else:
                at += size
        size //= 2
    return data
