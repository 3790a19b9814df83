"""Local pictures: whether a provider takes one, and its mark in a request.

A request holds `sha256:…` of a picture's content: the same content is the same task, whatever its file is called.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from runner.providers.spec import ImageLimits, PictureKind

#: bytes of the largest file that is looked at
LARGEST = 64 * 2**20
_MARK = re.compile(r"sha256:([0-9a-f]{64})\Z")
_URL = re.compile(r"https?://[^\s]+\Z")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{200,}={0,2}\Z")
#: one line of a terminal
_SHOWN = 60


class Unfit(Exception):  # noqa: N818 - reads as what it says
    """A file that cannot be sent, and what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.message, self.hint = message, hint


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of a picture without decoding it; sides in pixels."""

    kind: PictureKind
    width: int
    height: int
    bytes: int
    sha256: str

    @property
    def mark(self) -> str:
        """What a request holds in its place."""
        return f"sha256:{self.sha256}"


class Pictures(Protocol):
    """Where local pictures are found."""

    def look(self, path: str) -> Picture:
        """The picture in a file that a manifest names; raises Unfit."""


def brought(value: str, limits: ImageLimits | None, pictures: Pictures | None) -> tuple[str, tuple[str, str] | None]:
    """What a request holds for an image that was written so; or what is wrong with it, and what to do.

    `limits` None: the provider takes no local files; `pictures` None: there is nowhere to look for them.
    """
    if value.startswith("data:"):
        return value, ("a data: URL is not taken", "give a plain URL, or the Base64 text without the data: prefix")
    if _URL.match(value) or _BASE64.match(value):
        return value, None
    if limits is None or pictures is None or not value or "://" in value:
        hint = "give a URL" if limits is None else "give a URL, or the path of a file beside the manifest"
        return value, (f"{_shown(value)} is neither a URL nor Base64", hint)
    try:
        picture = pictures.look(value)
    except Unfit as error:
        return value, (f"{_shown(value)} {error.message}", error.hint)
    wrong = unfit(limits, picture)
    return picture.mark, wrong and (f"{_shown(value)} {wrong[0]}", wrong[1])


def unfit(limits: ImageLimits, picture: Picture) -> tuple[str, str] | None:
    """Why the picture is not taken, and what is; None where it is."""
    if limits.kinds is not None and picture.kind not in limits.kinds:
        return f"is a {picture.kind.upper()}", f"expected {' or '.join(kind.upper() for kind in limits.kinds)}"
    if limits.max_bytes is not None and picture.bytes > limits.max_bytes:
        return f"has {picture.bytes:,} bytes", f"expected at most {limits.max_bytes:,}"
    short, long = sorted((picture.width, picture.height))
    sides = f"is {picture.width} × {picture.height} pixels"
    if limits.min_side is not None and short < limits.min_side:
        return sides, f"expected sides of at least {limits.min_side} pixels"
    if limits.ratio is not None and long > limits.ratio * short:
        return sides, f"expected a ratio from 1:{limits.ratio:g} to {limits.ratio:g}:1"
    return None


def holds_mark(value: Any) -> bool:
    """Whether a value of a request is a local picture, or a list with one; a provider shows it in another way."""
    return any(isinstance(each, str) and _MARK.match(each) for each in (value if isinstance(value, list) else [value]))


def places(request: Mapping[str, Any], fields: Iterable[str]) -> dict[str, str]:
    """Where in these fields pictures stand, as `field` or `field/2`, and the SHA-256 of each."""
    found = ((place, _MARK.match(value)) for field in fields for place, value in _texts(field, request.get(field)))
    return {place: match[1] for place, match in found if match}


def placed(request: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """The request with other values at those places."""
    made = dict(request)
    for place, value in values.items():
        field, _, number = place.partition("/")
        if number:
            made[field] = [value if at == int(number) else each for at, each in enumerate(made[field])]
        else:
            made[field] = value
    return made


def _texts(field: str, value: Any) -> Iterator[tuple[str, str]]:
    each = enumerate(value) if isinstance(value, list) else [("", value)]
    return ((f"{field}/{number}".rstrip("/"), text) for number, text in each if isinstance(text, str))


def _shown(value: str) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}…"
