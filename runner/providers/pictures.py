"""Check local images against a provider's limits, and put placeholders for them into requests.

The placeholder is `sha256:…` of the image's content. The same content makes the same task, whatever its file is called.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from runner.providers.spec import ImageLimits, PictureKind

#: bytes of the largest image file that is read
LARGEST = 64 * 2**20
_MARK = re.compile(r"sha256:([0-9a-f]{64})\Z")
_URL = re.compile(r"https?://[^\s]+\Z")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{200,}={0,2}\Z")
#: characters of a value in a message, to fit one line of a terminal
_SHOWN = 60


class Unfit(Exception):  # noqa: N818
    """Image file that cannot be sent, with a hint."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.message, self.hint = message, hint


@dataclass(frozen=True, slots=True)
class Picture:
    """Properties of an image that are known without decoding it. Width and height are in pixels."""

    kind: PictureKind
    width: int
    height: int
    bytes: int
    sha256: str

    @property
    def mark(self) -> str:
        """Return the placeholder that a request holds instead of the image."""
        return f"sha256:{self.sha256}"


class Pictures(Protocol):
    """Access to local image files."""

    def look(self, path: str) -> Picture:
        """Return the properties of an image file that a manifest names. Raises ImageError."""


def brought(value: str, limits: ImageLimits | None, files: Pictures | None) -> tuple[str, tuple[str, str] | None]:
    """Return what a request holds for an image that is written as `value`, and None or a message and a hint.

    `limits` is None if the provider takes no local files, `files` is None if there is no access to local files.
    """
    if value.startswith("data:"):
        return value, ("a data: URL is not taken", "give a plain URL, or the Base64 text without the data: prefix")
    if _URL.match(value) or _BASE64.match(value):
        return value, None
    if limits is None or files is None or not value or "://" in value:
        hint = "give a URL" if limits is None else "give a URL, or the path of a file beside the manifest"
        return value, (f"{_shown(value)} is neither a URL nor Base64", hint)
    try:
        image = files.look(value)
    except Unfit as error:
        return value, (f"{_shown(value)} {error.message}", error.hint)
    violation = unfit(limits, image)
    return image.mark, violation and (f"{_shown(value)} {violation[0]}", violation[1])


def unfit(limits: ImageLimits, image: Picture) -> tuple[str, str] | None:
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


def holds_mark(value: Any) -> bool:
    """Return True if a value of a request is a placeholder, or a list with one. A provider never echoes it."""
    entries = value if isinstance(value, list) else [value]
    return any(isinstance(entry, str) and _MARK.match(entry) for entry in entries)


def places(request: Mapping[str, Any], fields: Iterable[str]) -> dict[str, str]:
    """Return the place of every placeholder in these fields, as `field` or `field/2`, and the SHA-256 of its image."""
    matches = ((place, _MARK.match(value)) for field in fields for place, value in _texts(field, request.get(field)))
    return {place: match[1] for place, match in matches if match}


def placed(request: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """Return the request with other values at these places."""
    filled = dict(request)
    for place, value in values.items():
        field, _, number = place.partition("/")
        if number:
            filled[field] = [value if at == int(number) else entry for at, entry in enumerate(filled[field])]
        else:
            filled[field] = value
    return filled


def _texts(field: str, value: Any) -> Iterator[tuple[str, str]]:
    entries = enumerate(value) if isinstance(value, list) else [("", value)]
    return ((f"{field}/{number}".rstrip("/"), text) for number, text in entries if isinstance(text, str))


def _shown(value: str) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}…"
