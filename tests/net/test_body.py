"""Response bodies of any content: only UnreadableBodyError is raised, and memory stays bounded."""

import contextlib
import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.net.body import Inflater, UnreadableBodyError, parse_body

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
    assert parse_body(text.encode()) == text[:2000]


def test_invalid_utf8_is_escaped():
    assert parse_body(b'{"a": "\xff"}') == '{"a": "\\xff"}'


@pytest.mark.parametrize(
    ("raw", "value"), [(b'\xef\xbb\xbf{"a": "\\u732b"}', {"a": "猫"}), (b"[1, 2.5, null]", [1, 2.5, None])]
)
def test_valid_json(raw, value):
    assert parse_body(raw) == value


@given(st.binary(max_size=300))
def test_any_body_can_be_stored(raw):
    value = parse_body(raw)
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
    with contextlib.suppress(UnreadableBodyError):
        inflated(data, encoding)


def test_gzip_bomb_is_read_in_small_pieces():
    bomb = gzip.compress(b"\0" * (64 << 20))
    inflater, largest = Inflater("gzip", 32 << 20), 0
    with pytest.raises(UnreadableBodyError, match="larger"):  # noqa: PT012 - the largest piece before the exception is tested
        for piece in inflater.feed(bomb):
            largest = max(largest, len(piece))
    assert largest <= 1 << 20


@pytest.mark.parametrize("encoding", ["UTF-8", "aws-chunked", "binary", "none", "x", ""])
def test_coding_that_is_none_leaves_the_bytes(encoding):
    assert inflated(b"abc", encoding) == b"abc"


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'{"a": NaN, "b": -Infinity, "c": 1e999, "d": 1.5}', {"a": None, "b": None, "c": None, "d": 1.5}),
        (b'{"a": "\\ud800x", "\\udfff": ["\\u732b"]}', {"a": "?x", "?": ["猫"]}),
        (b'{"a": "line\nline\x01"}', {"a": "line\nline\x01"}),
        (b'{"a": "\xff"}', {"a": "\ufffd"}),
        (b"{", "{"),
        (b"[" * 100_000, "[" * 2000),
    ],
)
def test_answer_that_buys_nothing_is_read_like_a_browser(raw, value):
    assert parse_body(raw, strict=False) == value
    if not isinstance(value, str):
        assert isinstance(parse_body(raw), str)


@given(st.binary(max_size=300))
def test_any_lenient_body_can_be_stored(raw):
    json.dumps(parse_body(raw, strict=False), ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip"])
def test_unsupported_encodings(encoding):
    with pytest.raises(UnreadableBodyError):
        Inflater(encoding, 1)
