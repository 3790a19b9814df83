"""The head of a picture's file: its kind and its sides. Nothing is decoded, and the work is bounded.

Any bytes are answered; they raise NotAPicture, which says what they are instead, and nothing else.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.providers.spec import PictureKind

#: segments of a JPEG before its size that are looked at
_SEGMENTS = 10_000


class NotAPicture(ValueError):  # noqa: N818 - reads as what it says
    """The bytes are no picture that could be sent."""


def measured(data: bytes) -> tuple[PictureKind, int, int]:
    """Kind, width and height in pixels; raises NotAPicture that says what it is instead."""
    kind = next((kind for kind, (_, looks) in _READERS.items() if looks(data)), None)
    if kind is None:
        raise NotAPicture(_other(data))
    width, height = _READERS[kind][0](data)
    if width < 1 or height < 1:
        raise NotAPicture(f"is a {kind.upper()} without a size: it is damaged")
    return kind, width, height


def _png(data: bytes) -> tuple[int, int]:
    if data[8:16] != b"\0\0\0\rIHDR" or len(data) < 33:  # noqa: PLR2004 - with the chunk's checksum
        return 0, 0
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


_MARKER = re.compile(rb"\xff+([^\xff\0])")
#: start of frame, in all its ways of coding
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
#: segments without a length
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
#: the pixels, or the end
_OVER = frozenset({0xD9, 0xDA})


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    for _ in range(_SEGMENTS):
        found = _MARKER.match(data, at)
        if found is None:
            break
        mark, at = found[1][0], found.end()
        if mark in _BARE:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if mark in _FRAMES and len(data) >= at + 7:
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 3 : at + 5], "big")
        if mark in _OVER or length < 2:  # noqa: PLR2004 - it counts itself
            break
        at += length
    return 0, 0


def _webp(data: bytes) -> tuple[int, int]:
    if len(data) < 30:  # noqa: PLR2004 - as much as any of the three needs
        return 0, 0
    match data[12:16]:
        case b"VP8 " if data[23:26] == b"\x9d\x01\x2a":
            return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
        case b"VP8L" if data[20] == 0x2F:  # noqa: PLR2004 - its signature
            bits = int.from_bytes(data[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        case _:
            return 0, 0


_READERS: dict[PictureKind, tuple[Callable[[bytes], tuple[int, int]], Callable[[bytes], bool]]] = {
    "png": (_png, lambda data: data.startswith(b"\x89PNG\r\n\x1a\n")),
    "jpeg": (_jpeg, lambda data: data.startswith(b"\xff\xd8\xff")),
    "webp": (_webp, lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP"),
}
#: what people take for a picture that can be sent
_OTHERS = {b"GIF8": "a GIF", b"BM": "a BMP", b"II*\0": "a TIFF", b"MM\0*": "a TIFF", b"%PDF": "a PDF", b"<": "text"}
_BRANDS = {b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis"}


def _other(data: bytes) -> str:
    if not data:
        return "is empty"
    if data[4:8] == b"ftyp" and data[8:12] in _BRANDS:
        return f"is a picture of the kind {data[8:12].decode()}"
    return next((f"is {name}" for start, name in _OTHERS.items() if data.startswith(start)), "is no picture")
