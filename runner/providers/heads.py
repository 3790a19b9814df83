"""Read kind and size of an image from its file header. Nothing is decoded, and the work is bounded.

Any input is safe. Bytes that are no supported image raise NotAnImageError, which names what they are, and nothing else.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.providers.spec import PictureKind

#: segments of a JPEG that are searched for its size
_SEGMENTS = 10_000


class NotAPicture(ValueError):  # noqa: N818
    """Bytes that are no image of a supported kind. The message names what they are instead."""


def measured(data: bytes) -> tuple[PictureKind, int, int]:
    """Return kind, width and height (pixels) of an image file. Raises NotAnImageError."""
    kind = next((kind for kind, (_, has_signature) in _READERS.items() if has_signature(data)), None)
    if kind is None:
        raise NotAPicture(_other(data))
    read_size, _ = _READERS[kind]
    width, height = read_size(data)
    if width < 1 or height < 1:
        raise NotAPicture(f"is a {kind.upper()} without a size: it is damaged")
    return kind, width, height


def _png(data: bytes) -> tuple[int, int]:
    if data[8:16] != b"\0\0\0\rIHDR" or len(data) < 33:  # noqa: PLR2004 - includes the chunk's checksum
        return 0, 0
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


_MARKER = re.compile(rb"\xff+([^\xff\0])")
#: start of frame, for every coding process
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
#: markers without a length
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
#: start of scan and end of image: no size follows
_OVER = frozenset({0xD9, 0xDA})


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    for _ in range(_SEGMENTS):
        found = _MARKER.match(data, at)
        if found is None:
            break
        marker, at = found[1][0], found.end()
        if marker in _BARE:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if marker in _FRAMES and len(data) >= at + 7:
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 3 : at + 5], "big")
        if marker in _OVER or length < 2:  # noqa: PLR2004 - the length counts its own two bytes
            break
        at += length
    return 0, 0


def _webp(data: bytes) -> tuple[int, int]:
    if len(data) < 30:  # noqa: PLR2004 - enough for each of the three forms
        return 0, 0
    match data[12:16]:
        case b"VP8 " if data[23:26] == b"\x9d\x01\x2a":
            return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
        case b"VP8L" if data[20] == 0x2F:  # noqa: PLR2004 - signature of VP8L
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
#: first bytes of other kinds of files that users try to send as images
_OTHERS = {b"GIF8": "a GIF", b"BM": "a BMP", b"II*\0": "a TIFF", b"MM\0*": "a TIFF", b"%PDF": "a PDF", b"<": "text"}
_BRANDS = {b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis"}


def _other(data: bytes) -> str:
    if not data:
        return "is empty"
    if data[4:8] == b"ftyp" and data[8:12] in _BRANDS:
        return f"is a picture of the kind {data[8:12].decode()}"
    return next((f"is {name}" for start, name in _OTHERS.items() if data.startswith(start)), "is no picture")
