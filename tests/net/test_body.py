"""Response bodies of any content: only UnreadableBodyError is raised, and memory stays bounded."""

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
def test_invalid_json_stays_text(text):
    assert parsed(text.encode()) == text[:2000]


def test_invalid_utf8_is_escaped():
    assert parsed(b'{"a": "\xff"}') == '{"a": "\\xff"}'


@pytest.mark.parametrize(
    ("raw", "value"), [(b'\xef\xbb\xbf{"a": "\\u732b"}', {"a": "猫"}), (b"[1, 2.5, null]", [1, 2.5, None])]
)
def test_valid_json(raw, value):
    assert parsed(raw) == value


@given(st.binary(max_size=300))
def test_any_body_can_be_stored(raw):
    value = parsed(raw)
    if isinstance(value, str):
        value.encode()


def inflated(raw, encoding, limit=10**6, step=7):
    inflater = Inflater(encoding, limit)
    data = b"".join(piece for at in range(0, len(raw), step) for piece in inflater.feed(raw[at : at + step]))
    inflater.finish()
    return data


@given(st.binary(min_size=1, max_size=2000), st.integers(1, 50))
def test_decompression_restores_the_data(data, step):
    raw = zlib.compressobj(wbits=-15)
    assert inflated(gzip.compress(data), "gzip", step=step) == data
    assert inflated(gzip.compress(data) + gzip.compress(data), "GZIP", step=step) == data * 2
    assert inflated(zlib.compress(data), "deflate", step=step) == data
    assert inflated(raw.compress(data) + raw.flush(), "deflate", step=10**6) == data
    assert inflated(data, "", step=step) == data


@given(st.binary(min_size=1, max_size=200), st.sampled_from(["gzip", "deflate"]))
def test_damaged_data_raises_only_unreadable_body_error(data, encoding):
    with contextlib.suppress(Unreadable):
        inflated(data, encoding)


def test_gzip_bomb_is_read_in_small_pieces():
    bomb = gzip.compress(b"\0" * (64 << 20))
    inflater, largest = Inflater("gzip", 32 << 20), 0
    with pytest.raises(Unreadable, match="larger"):  # noqa: PT012 - the largest piece before the exception is tested
        for piece in inflater.feed(bomb):
            largest = max(largest, len(piece))
    assert largest <= 1 << 20


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "x"])
def test_unsupported_encodings(encoding):
    with pytest.raises(Unreadable):
        Inflater(encoding, 1)
