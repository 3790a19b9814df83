"""Bodies as bad as they come: nothing raises but Unreadable, nothing grows."""

import contextlib
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.net.body import Inflater, Unreadable, parsed

TEXT = [
    '{"a": 1, "a": 2}',
    "NaN",
    '{"a": Infinity}',
    '"\\ud800"',
    "1" * 5000,
    "[" * 100_000,
    "",
    "<html>",
    "1e999",
    "{",
]


@pytest.mark.parametrize("text", TEXT, ids=range(len(TEXT)))
def test_what_is_no_strict_json_stays_text(text):
    assert parsed(text.encode()) == text[:2000]


def test_bytes_that_are_no_text_are_written_out():
    assert parsed(b'{"a": "\xff"}') == '{"a": "\\xff"}'


@pytest.mark.parametrize(
    ("raw", "value"), [(b'\xef\xbb\xbf{"a": "\\u732b"}', {"a": "猫"}), (b"[1, 2.5, null]", [1, 2.5, None])]
)
def test_json(raw, value):
    assert parsed(raw) == value


@given(st.binary(max_size=300))
def test_any_bytes_are_read_as_something_that_a_store_can_hold(raw):
    value = parsed(raw)
    if isinstance(value, str):
        value.encode()


def inflated(raw, encoding, limit=10**6, step=7):
    engine = Inflater(encoding, limit)
    made = b"".join(piece for at in range(0, len(raw), step) for piece in engine.feed(raw[at : at + step]))
    engine.finish()
    return made


@given(st.binary(min_size=1, max_size=2000), st.integers(1, 50))
def test_what_was_compressed_comes_back(data, step):
    raw = zlib.compressobj(wbits=-15)
    assert inflated(gzip.compress(data), "gzip", step=step) == data
    assert inflated(gzip.compress(data) + gzip.compress(data), "GZIP", step=step) == data * 2
    assert inflated(zlib.compress(data), "deflate", step=step) == data
    assert inflated(raw.compress(data) + raw.flush(), "deflate", step=10**6) == data
    assert inflated(data, "", step=step) == data


@given(st.binary(min_size=1, max_size=200), st.sampled_from(["gzip", "deflate"]))
def test_damaged_bytes_are_unreadable_at_worst(data, encoding):
    with contextlib.suppress(Unreadable):
        inflated(data, encoding)


def test_a_bomb_goes_off_in_small_pieces():
    bomb = gzip.compress(b"\0" * (64 << 20))
    engine, largest = Inflater("gzip", 32 << 20), 0
    with pytest.raises(Unreadable, match="larger"):  # noqa: PT012 - the largest piece before it is the point
        for piece in engine.feed(bomb):
            largest = max(largest, len(piece))
    assert largest <= 1 << 20


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "x"])
def test_codings_that_are_not_spoken(encoding):
    with pytest.raises(Unreadable):
        Inflater(encoding, 1)
