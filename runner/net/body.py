"""Bodies from outside: inflated within bounds, parsed strictly.

A gzip bomb of 972 KB is 1 GB; Python's parser keeps the last of two equal keys, admits NaN, lone surrogates (which
SQLite then refuses) and fails in four different ways (faults.md FN11 to FN13).
"""

from __future__ import annotations

import json
import math
import zlib
from typing import TYPE_CHECKING, Any, NoReturn

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = 1 << 20
#: encodings that are named in an error; any other text of a header may be an echo of a credential
_KNOWN = frozenset({"br", "zstd", "compress"})
#: of a body that is no JSON, this much is kept, in characters
TEXT_LIMIT = 2000


class Unreadable(Exception):  # noqa: N818 - reads as what it says
    """The body cannot be decoded, or is larger than it may be."""


class Inflater:
    """Content-Encoding undone piece by piece; never more than 1 MiB at once, never more than `limit` in all."""

    def __init__(self, encoding: str, limit: int) -> None:
        self._coded = encoding.strip().lower() not in {"", "identity"}
        self._limit = limit
        self._seen = 0
        self._raw_deflate = False
        if not self._coded:
            return
        if encoding.strip().lower() not in {"gzip", "x-gzip", "deflate"}:
            raise Unreadable(f"content encoding {encoding!r}" if encoding in _KNOWN else "an unknown content encoding")
        # 32 + 15: gzip or zlib, by its own header
        self._engine = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The plain bytes that these bytes make."""
        for piece in self._inflate(data) if self._coded else (data,):
            self._seen += len(piece)
            if self._seen > self._limit:
                raise Unreadable(f"body larger than {self._limit} bytes")
            yield piece

    def finish(self) -> None:
        """Called at the end: a stream that stops in the middle is no whole body."""
        if self._coded and not self._engine.eof:
            raise Unreadable("compressed body ends early")

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._engine.eof:  # gzip may have several members
                self._engine = zlib.decompressobj(zlib.MAX_WBITS | 32)
            yield self._step(data)
            while self._engine.unconsumed_tail:
                yield self._step(self._engine.unconsumed_tail)
            data = self._engine.unused_data

    def _step(self, data: bytes) -> bytes:
        try:
            return self._engine.decompress(data, _PIECE)
        except zlib.error as error:
            if self._seen or self._raw_deflate:
                raise Unreadable("compressed body is damaged") from error
        self._raw_deflate = True  # some servers say deflate and leave zlib's header out
        self._engine = zlib.decompressobj(-zlib.MAX_WBITS)
        return self._step(data)


def parsed(raw: bytes) -> Any:
    """Strict JSON, or else the text, cut to 2,000 characters that any store can hold."""
    try:
        text = raw.decode("utf-8-sig")
        if "\\u" in text:
            orjson.loads(text)  # refuses lone surrogates
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return raw[: TEXT_LIMIT * 4].decode("utf-8", "backslashreplace")[:TEXT_LIMIT]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice")
    return made


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("number out of range")
    return value


#: made once: `json.loads` would make one for every body
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
