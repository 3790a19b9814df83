"""Detection of a media type by the first bytes, and of a truncated file by its structure.

The name, the link and the Content-Type are not trusted, since the other side chooses them. The functions run in linear
time and raise for no input.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.providers.images import image_kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Data = bytes | mmap.mmap

#: number of first bytes that `sniff` needs
HEAD_SIZE = 512
#: maximum number of parts of a valid file
_MAX_PARTS = 1_000_000


@dataclass(frozen=True, slots=True)
class MediaKind:
    """Media type of a file that may be kept."""

    media_type: str
    extension: str

    @property
    def is_video(self) -> bool:
        """Return True for a video type."""
        return self.media_type.startswith("video/")


PNG = MediaKind("image/png", "png")
JPEG = MediaKind("image/jpeg", "jpg")
WEBP = MediaKind("image/webp", "webp")
GIF = MediaKind("image/gif", "gif")
AVIF = MediaKind("image/avif", "avif")
MP4 = MediaKind("video/mp4", "mp4")
WEBM = MediaKind("video/webm", "webm")
MOV = MediaKind("video/quicktime", "mov")
WAV = MediaKind("audio/wav", "wav")
MP3 = MediaKind("audio/mpeg", "mp3")

_IMAGES = {"png": PNG, "jpeg": JPEG, "webp": WEBP}
_MAGIC = {b"GIF87a": GIF, b"GIF89a": GIF, b"ID3": MP3}
#: first three letters of the brands of an MP4 video
_VIDEO_BRANDS = frozenset(
    {b"iso", b"mp4", b"avc", b"M4V", b"3gp", b"3g2", b"das", b"mmp", b"MSN", b"f4v", b"hvc", b"cmf"}
)
#: id of a cluster of frames in WebM
_CLUSTER = b"\x1fC\xb6u"
#: kilobits per second of MPEG layer III, for MPEG 1 and for MPEG 2 and 2.5
_BIT_RATES = {
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
#: samples per second by the version field of a frame
_SAMPLE_RATES = {3: (44100, 48000, 32000, 0), 2: (22050, 24000, 16000, 0), 0: (11025, 12000, 8000, 0)}


def sniff(head: bytes) -> MediaKind | None:
    """Return the kind that the first bytes show, or None for anything that may not be kept (HTML, SVG, programs)."""
    if image := image_kind(head):
        return _IMAGES[image]
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF":
        return WAV if head[8:12] == b"WAVE" else None
    if head[:4] == b"\x1aE\xdf\xa3":
        return WEBM if b"webm" in head[:64] else None
    if head[4:8] == b"ftyp":
        return _kind_by_brand(head)
    if head[4:8] in {b"moov", b"mdat", b"wide"}:
        return MOV
    return MP3 if _frame_size(head[:4]) else None


def is_complete_file(path: Path) -> bool:
    """Return True if the structure of the file is complete to its end."""
    with path.open("rb") as file:
        if file.seek(0, 2) == 0:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return is_complete(data)


def is_complete(data: Data) -> bool:
    """Return True if the structure of the data is complete to its end."""
    kind = sniff(data[:HEAD_SIZE])
    return kind is not None and _CHECKS[kind](data)


def _kind_by_brand(head: bytes) -> MediaKind | None:
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[at : at + 4] for at in (8, *range(16, end, 4))}
    if brands & {b"avif", b"avis"}:
        return AVIF
    if head[8:12] == b"qt  ":
        return MOV
    return MP4 if head[8:11] in _VIDEO_BRANDS else None


def _is_complete_png(data: Data) -> bool:
    at, pixels = 8, False
    while at + 12 <= len(data):
        size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if (at == 8) != (name == b"IHDR"):  # noqa: PLR2004 - it is the first chunk, and no other
            return False
        at += 12 + size
        pixels = pixels or name == b"IDAT"
        if name == b"IEND":
            return pixels and at <= len(data)
    return False


def _is_complete_jpeg(data: Data) -> bool:
    at, scanned = 2, False
    while (at := data.find(b"\xff", at)) >= 0 and at + 1 < len(data):
        mark = data[at + 1]
        if mark == 0xFF:  # noqa: PLR2004 - a fill byte
            at += 1
        elif mark in {0x00, 0x01} or 0xD0 <= mark <= 0xD8:  # noqa: PLR2004 - marks without a length
            at += 2
        elif mark == 0xD9:  # noqa: PLR2004 - end of image
            return scanned
        else:
            scanned = scanned or mark == 0xDA  # noqa: PLR2004 - start of scan
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    return False


def _is_complete_gif(data: Data) -> bool:
    at, frames = 13 + _colour_table_size(data[10:11]), 0
    while at < len(data):
        match data[at]:
            case 0x3B:
                return frames > 0
            case 0x21:
                at = _skip_blocks(data, at + 2)
            case 0x2C:
                frames += 1
                at = _skip_blocks(data, at + 11 + _colour_table_size(data[at + 9 : at + 10]))
            case _:
                return False
    return False


def _colour_table_size(packed: bytes) -> int:
    """Return the bytes of a colour table with the given packed field."""
    return 3 << ((packed[0] & 7) + 1) if packed and packed[0] & 0x80 else 0


def _skip_blocks(data: Data, at: int) -> int:
    """Return the position after a sequence of GIF sub-blocks."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


def _is_complete_riff(data: Data) -> bool:
    size = int.from_bytes(data[4:8], "little")
    if size == 0xFFFFFFFF:  # noqa: PLR2004 - written to a pipe: its end is unknown
        return len(data) > 44  # noqa: PLR2004 - more than a header
    return size > 4 and size + 8 <= len(data)  # noqa: PLR2004 - more than the form's name


def _box_check(wanted: bytes) -> Callable[[Data], bool]:
    """Return a check for a complete sequence of ISO BMFF boxes, one of which has the name `wanted`."""

    def check(data: Data) -> bool:
        at, names = 0, set()
        for _ in range(_MAX_PARTS):
            if at == len(data):
                return wanted in names
            size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
            if size == 1:
                size = int.from_bytes(data[at + 8 : at + 16], "big")
            size = size or len(data) - at
            at += size
            names.add(name)
            if size < 8 or at > len(data):  # noqa: PLR2004 - size of a box header
                return False
        return False

    return check


def _is_complete_webm(data: Data) -> bool:
    """Check an EBML header and one segment whose parts end where it ends; a streamed segment has no end to check."""
    head = _element_bounds(data, 0)
    segment = _element_bounds(data, head[1]) if head and head[1] else None
    if not head or not segment or data[head[1] : head[1] + 4] != b"\x18S\x80g":
        return False
    at, end = segment
    clusters = 0
    for _ in range(_MAX_PARTS):
        if at == (end or len(data)):
            return clusters > 0
        clusters += data[at : at + 4] == _CLUSTER
        part = _element_bounds(data, at)
        if part is None or at > len(data):
            return False
        if not part[1]:  # a part of unknown size holds the rest
            return clusters > 0
        at = part[1]
    return False


def _element_bounds(data: Data, at: int) -> tuple[int, int] | None:
    """Return begin and end of an element's content (end 0 if unknown), or None if it exceeds the file."""
    if at >= len(data) or not data[at]:
        return None
    at += 9 - data[at].bit_length()
    if at >= len(data) or not data[at]:
        return None
    length = 9 - data[at].bit_length()
    size = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
    begin = at + length
    if size == (1 << 7 * length) - 1:
        return begin, 0
    return (begin, begin + size) if begin + size <= len(data) else None


def _frame_size(head: bytes) -> int:
    """Return the bytes of the MPEG layer III frame with this header, or 0 if it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:  # noqa: PLR2004 - sync word and layer III
        return 0
    version = head[1] >> 3 & 3
    sample = _SAMPLE_RATES.get(version, (0, 0, 0, 0))[head[2] >> 2 & 3]
    rate = _BIT_RATES[1 if version == 3 else 2][head[2] >> 4]  # noqa: PLR2004 - MPEG 1
    if not rate or not sample:
        return 0
    return (144000 if version == 3 else 72000) * rate // sample + (head[2] >> 1 & 1)  # noqa: PLR2004 - MPEG 1


def _is_complete_mp3(data: Data) -> bool:
    at, frames = 0, 0
    if data[:3] == b"ID3":
        size = data[6:10]
        at = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(size, (21, 14, 7, 0), strict=False))
    while at < len(data):
        size_of = _frame_size(data[at : at + 4])
        if not size_of:
            rest = data[at : at + 8]
            return frames > 0 and (rest[:3] == b"TAG" or rest == b"APETAGEX" or not any(rest))
        frames += 1
        at += size_of
    return frames > 0 and at == len(data)


_CHECKS: dict[MediaKind, Callable[[Data], bool]] = {
    PNG: _is_complete_png,
    JPEG: _is_complete_jpeg,
    WEBP: _is_complete_riff,
    WAV: _is_complete_riff,
    GIF: _is_complete_gif,
    AVIF: _box_check(b"meta"),
    MP4: _box_check(b"moov"),
    MOV: _box_check(b"moov"),
    WEBM: _is_complete_webm,
    MP3: _is_complete_mp3,
}
