"""Read kind and size of an image from its header: the same as Pillow for real files, NotAnImageError for others."""

from __future__ import annotations

import io
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from runner.providers.heads import NotAPicture, measured

LENGTHS = st.integers(1, 2000)
MIB = 1 << 20


def encoded(kind, size, **options):
    file = io.BytesIO()
    Image.new("RGB", size, (9, 99, 199)).save(file, kind, **options)
    return file.getvalue()


def segment(marker, body):
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


JPEG = encoded("JPEG", (320, 200))
PNG_HEAD = b"\x89PNG\r\n\x1a\n"
HEADS = [PNG_HEAD, PNG_HEAD + b"\0\0\0\rIHDR", b"\xff\xd8\xff", b"\xff\xd8\xff\xc0\0\x11",
         b"RIFF....WEBPVP8 ", b"RIFF....WEBPVP8L", b"RIFF....WEBPVP8X", b""]  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(LENGTHS, LENGTHS, st.sampled_from([("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}),
                                      ("WEBP", {"lossless": True}), ("WEBP", {"exif": b"Exif\0\0abcd"})]))  # fmt: skip
def test_size_is_the_one_that_pillow_wrote(width, height, how):
    kind, options = how
    width = min(width, 4 * 10**5 // height + 1)
    data = encoded(kind, (width, height), **options)
    assert measured(data) == (kind.lower(), width, height)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(HEADS), st.binary(max_size=80))
@example(b"\xff\xd8\xff", b"\xc0\0\x01")
@example(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", bytes(30))
def test_any_bytes_are_read_or_named(head, rest):
    try:
        kind, width, height = measured(head + rest)
    except NotAPicture as error:
        message = str(error)
    else:
        message = f"is a {kind}" if min(width, height) > 0 else "has no sides"
    assert message.startswith("is ")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.integers(0, 400))
def test_truncated_file_has_the_right_size_or_none(kind, end):
    data = encoded(kind, (317, 211))
    try:
        assert measured(data[:end])[1:] == (317, 211)
    except NotAPicture:
        assert end < len(data)


def test_segments_before_the_size_of_a_jpeg_are_skipped():
    """Cameras write large metadata segments before the size."""
    before = b"".join([segment(0xE1, b"Exif" + bytes(60_000)), segment(0xE2, bytes(65_000)) * 40, b"\xff\xff\xff"])
    assert measured(JPEG[:2] + before + JPEG[2:]) == ("jpeg", 320, 200)


@pytest.mark.parametrize(
    "part", [b"\xff" * 4, b"\xff\xe1\0\2", b"\xff\xd0\xff\xd0"], ids=["fill", "empty segments", "bare marks"]
)
def test_endless_header_takes_bounded_time(part):
    bomb = b"\xff\xd8" + part * (2 * MIB)
    began = time.process_time()
    with pytest.raises(NotAPicture):
        measured(bomb)
    assert time.process_time() - began < 1.0


def test_decompression_bomb_is_not_decoded():
    """An image of 50,000 × 50,000 pixels is 7.5 GB decoded, and 30 bytes of header."""
    head = encoded("PNG", (1, 1))
    huge = head[:16] + (50_000).to_bytes(4, "big") * 2 + head[24:]
    assert measured(huge) == ("png", 50_000, 50_000)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"GIF89a\1\0\1\0", "is a GIF"),
        (b"BM\0\0", "is a BMP"),
        (b"\0\0\0\x18ftypheic", "is a picture of the kind heic"),
        (b"<svg>", "is text"),
        (b"root:x:0:0", "is no picture"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----", "is no picture"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG without a size: it is damaged"),
        (b"RIFF\0\0\0\0WAVEfmt ", "is no picture"),
    ],
)
def test_other_files_are_named(data, message):
    with pytest.raises(NotAPicture) as caught:
        measured(data)
    assert str(caught.value) == message
