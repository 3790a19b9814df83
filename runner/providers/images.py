"""Check local images against a provider's limits, and put placeholders for them into requests.

The placeholder is `sha256:…` of the image's content. The same content makes the same task, whatever its file is called.
Kind and size are read from the header of a file: nothing is decoded, the work is bounded, and any other bytes raise
NotAnImageError, which names what they are.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from runner.providers.spec import ImageKind, ImageLimits

#: bytes of the largest image file that is read
MAX_IMAGE_BYTES = 64 * 2**20
#: segments of a JPEG that are searched for its size
_MAX_SEGMENTS = 10_000
#: characters of a value in a message, to fit one line of a terminal
_MAX_SHOWN = 60
_URL = re.compile(r"https?://[^\s]+\Z")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{200,}={0,2}\Z")
#: Base64 in lines, as programs for mail write it
_SHORTEST_BASE64 = 200
_WRAPPED_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{20,}[\r\n \t]+)+[A-Za-z0-9+/]*={0,2}\s*\Z")
#: the alphabet of Base64 in URLs, and the blanks and line ends in it
_URL_SAFE = str.maketrans("-_", "+/", " \t\r\n")
_NOT_INLINE_HINT = "give a plain URL, or put the image into a file and write its path"
_PLACEHOLDER = re.compile(r"sha256:([0-9a-f]{64})\Z")
_SIGNATURES: dict[bytes, ImageKind] = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}
_JPEG_MARKER = re.compile(rb"\xff+([^\xff\0])")
#: start of frame, for every coding process
_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
#: markers without a length
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
#: start of scan and end of image: no size follows
_JPEG_ENDS = frozenset({0xD9, 0xDA})
#: first bytes of other kinds of files that users try to send as images
_OTHER_KINDS = {
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"%PDF": "a PDF",
    b"<": "text",
}
_OTHER_BRANDS = {b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis"}


class ImageError(Exception):
    """Image file that cannot be sent, with a hint."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.message, self.hint = message, hint


class NotAnImageError(ValueError):
    """Bytes that are no image of a supported kind. The message names what they are instead."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Properties of an image that are known without decoding it. Width and height are in pixels."""

    kind: ImageKind
    width: int
    height: int
    bytes: int
    sha256: str

    @property
    def placeholder(self) -> str:
        """Return the placeholder that a request holds instead of the image."""
        return f"sha256:{self.sha256}"


class ImageFiles(Protocol):
    """Access to local image files."""

    def inspect(self, path: str) -> ImageInfo:
        """Return the properties of an image file that a manifest names. Raise ImageError."""


def resolve_image(
    value: str, limits: ImageLimits | None, files: ImageFiles | None, *, inline: bool = False
) -> tuple[str, tuple[str, str] | None]:
    """Return what a request holds for an image that is written as `value`, and None or a message and a hint.

    `limits` is None if the provider takes no local files, `files` is None if there is no access to local files.
    `inline` says that the provider takes images as Base64: then a data: URL is taken too, and Base64 in lines.
    """
    if value[:5].lower() == "data:":
        return _resolve_data_url(value, limits) if inline else (value, ("a data: URL is not taken", _NOT_INLINE_HINT))
    if inline and len(value) > _SHORTEST_BASE64 and _WRAPPED_BASE64.match(value):
        value = "".join(value.split())
    if _URL.match(value) or _BASE64.match(value):
        return value, None
    if limits is None or files is None or not value or "://" in value:
        hint = "give a URL" if limits is None else "give a URL, or the path of a file beside the manifest"
        return value, (f"{shortened_repr(value)} is neither a URL nor Base64", hint)
    try:
        image = files.inspect(value)
    except ImageError as error:
        return value, (f"{shortened_repr(value)} {error.message}", error.hint)
    violation = check_image(limits, image)
    return image.placeholder, violation and (f"{shortened_repr(value)} {violation[0]}", violation[1])


def _resolve_data_url(value: str, limits: ImageLimits | None) -> tuple[str, tuple[str, str] | None]:
    """Return the Base64 text of an image in a data: URL, as it is sent, and None or a message and a hint."""
    head, comma, text = value.partition(",")
    shown = shortened_repr(value)
    try:
        if not comma:
            raise ValueError
        data = (
            b64decode(unquote(text).translate(_URL_SAFE), validate=True)
            if head.lower().endswith(";base64")
            else (unquote_to_bytes(text))
        )
        kind, width, height = read_image_header(data)
    except NotAnImageError as error:
        return value, (f"{shown} {error}", "give a PNG, JPEG or WEBP image")
    except ValueError:
        return value, (f"{shown} is not a whole data: URL", "write data:image/png;base64,… or the path of a file")
    image = ImageInfo(kind, width, height, len(data), "")
    violation = check_image(limits, image) if limits is not None else None
    return b64encode(data).decode(), violation and (f"{shown} {violation[0]}", violation[1])


def check_image(limits: ImageLimits, image: ImageInfo) -> tuple[str, str] | None:
    """Return why the image violates the limits and what is expected, or None if it does not."""
    if limits.kinds is not None and image.kind not in limits.kinds:
        return f"is a {image.kind.upper()}", f"expected {' or '.join(kind.upper() for kind in limits.kinds)}"
    if limits.max_bytes is not None and image.bytes > limits.max_bytes:
        return f"has {image.bytes:,} bytes", f"expected at most {limits.max_bytes:,}"
    short, long = sorted((image.width, image.height))
    size = f"is {image.width} × {image.height} pixels"
    if limits.min_side is not None and short < limits.min_side:
        return size, f"expected sides of at least {limits.min_side} pixels"
    if limits.ratio is not None and long > limits.ratio * short:
        return size, f"expected a ratio from 1:{limits.ratio:g} to {limits.ratio:g}:1"
    return None


def has_placeholder(value: Any) -> bool:
    """Return True if a value of a request is a placeholder, or a list with one. A provider never echoes it."""
    if isinstance(value, str):  # nearly always, and asked for each field of a million requests
        return _PLACEHOLDER.match(value) is not None
    return isinstance(value, list) and any(isinstance(each, str) and _PLACEHOLDER.match(each) for each in value)


def find_placeholders(request: Mapping[str, Any], fields: Iterable[str]) -> dict[str, str]:
    """Return the field of every placeholder, `name` or in a list `name/2`, and the SHA-256 of its image."""
    found: dict[str, str] = {}
    for name in fields:
        value = request.get(name)
        for number, text in enumerate(value) if isinstance(value, list) else [("", value)]:
            if isinstance(text, str) and (match := _PLACEHOLDER.match(text)):
                found[f"{name}/{number}".rstrip("/")] = match[1]
    return found


def fill_placeholders(request: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """Return the request with other values in these fields, which are named as by `find_placeholders`."""
    filled = dict(request)
    for field, value in values.items():
        name, _, number = field.partition("/")
        if number:
            filled[name] = [value if at == int(number) else entry for at, entry in enumerate(filled[name])]
        else:
            filled[name] = value
    return filled


def shortened_repr(value: Any) -> str:
    """Return a value as messages show it, at most 60 characters long."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}…"


def image_kind(head: bytes) -> ImageKind | None:
    """Return the kind of image that begins with these bytes, or None for anything else. Twelve bytes are enough."""
    if head[:4] == b"RIFF":
        return "webp" if head[8:12] == b"WEBP" else None
    return next((kind for signature, kind in _SIGNATURES.items() if head.startswith(signature)), None)


def read_image_header(data: bytes) -> tuple[ImageKind, int, int]:
    """Return kind, width and height (pixels) of an image file. Raise NotAnImageError."""
    kind = image_kind(data)
    if kind is None:
        raise NotAnImageError(_describe_other(data))
    width, height = _SIZE_READERS[kind](data)
    if width < 1 or height < 1:
        raise NotAnImageError(f"is a {kind.upper()} without a size: it is damaged")
    return kind, width, height


def _png(data: bytes) -> tuple[int, int]:
    if data[8:16] != b"\0\0\0\rIHDR" or len(data) < 33:  # noqa: PLR2004 - includes the chunk's checksum
        return 0, 0
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    for _ in range(_MAX_SEGMENTS):
        found = _JPEG_MARKER.match(data, at)
        if found is None:
            break
        marker, at = found[1][0], found.end()
        if marker in _JPEG_BARE:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if marker in _JPEG_FRAMES and len(data) >= at + 7:
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 3 : at + 5], "big")
        if marker in _JPEG_ENDS or length < 2:  # noqa: PLR2004 - the length counts its own two bytes
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


_SIZE_READERS: dict[ImageKind, Callable[[bytes], tuple[int, int]]] = {"png": _png, "jpeg": _jpeg, "webp": _webp}


def _describe_other(data: bytes) -> str:
    if not data:
        return "is empty"
    if data[4:8] == b"ftyp" and data[8:12] in _OTHER_BRANDS:
        return f"is a picture of the kind {data[8:12].decode()}"
    return next((f"is {name}" for start, name in _OTHER_KINDS.items() if data.startswith(start)), "is no picture")
