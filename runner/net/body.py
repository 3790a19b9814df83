"""Decompression of response bodies within a size limit, and strict JSON parsing.

Both are needed because the other side is not trusted. A gzip bomb of 972 KB expands to 1 GB. Python's JSON parser keeps
the last of two equal keys, accepts NaN and lone surrogates (which SQLite then refuses), and raises four different
exceptions.
"""

from __future__ import annotations

import json
import math
import zlib
from typing import TYPE_CHECKING, Any, NoReturn

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

#: maximum bytes of one decompressed piece
_MAX_PIECE = 1 << 20
#: encodings that an error may name; any other text of a header may be an echo of a credential
_NAMED_ENCODINGS = frozenset({"br", "zstd", "compress"})
#: characters that are kept of a body that is not JSON
TEXT_LIMIT = 2000


class UnreadableBodyError(Exception):
    """A body that cannot be decompressed or exceeds the size limit."""


class Inflater:
    """Streaming decompressor for a Content-Encoding, with at most 1 MiB per piece and `limit` bytes in total.

    Raises UnreadableBodyError for an unknown encoding, a damaged stream or too many bytes.
    """

    def __init__(self, encoding: str, limit: int) -> None:
        self._is_compressed = encoding.strip().lower() not in {"", "identity"}
        self._limit = limit
        self._total = 0
        self._raw_deflate = False
        if not self._is_compressed:
            return
        if encoding.strip().lower() not in {"gzip", "x-gzip", "deflate"}:
            raise UnreadableBodyError(
                f"content encoding {encoding!r}" if encoding in _NAMED_ENCODINGS else "an unknown content encoding"
            )
        # 32 + 15: zlib detects gzip or zlib by the header
        self._decompressor = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decompressed bytes of `data`."""
        for piece in self._inflate(data) if self._is_compressed else (data,):
            self._total += len(piece)
            if self._total > self._limit:
                raise UnreadableBodyError(f"body larger than {self._limit} bytes")
            yield piece

    def finish(self) -> None:
        """Raise UnreadableBodyError if the compressed stream ended early."""
        if self._is_compressed and not self._decompressor.eof:
            raise UnreadableBodyError("compressed body ends early")

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._decompressor.eof:  # a gzip stream may consist of several members
                self._decompressor = zlib.decompressobj(zlib.MAX_WBITS | 32)
            yield self._decompress(data)
            while self._decompressor.unconsumed_tail:
                yield self._decompress(self._decompressor.unconsumed_tail)
            data = self._decompressor.unused_data

    def _decompress(self, data: bytes) -> bytes:
        try:
            return self._decompressor.decompress(data, _MAX_PIECE)
        except zlib.error as error:
            if self._total or self._raw_deflate:
                raise UnreadableBodyError("compressed body is damaged") from error
        self._raw_deflate = True  # some servers declare "deflate" and omit zlib's header
        self._decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
        return self._decompress(data)


def parse_body(raw: bytes) -> Any:
    """Return the value of strict JSON, or else the body as text of at most 2,000 characters that SQLite can store."""
    try:
        text = raw.decode("utf-8-sig")
        if "\\u" in text:
            orjson.loads(text)  # raises on lone surrogates
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return raw[: TEXT_LIMIT * 4].decode("utf-8", "backslashreplace")[:TEXT_LIMIT]


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice")
    return value


def _reject_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _parse_finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("number out of range")
    return value


#: shared decoder, since `json.loads` with hooks creates one for every body
_DECODER = json.JSONDecoder(
    object_pairs_hook=_reject_duplicate_keys, parse_constant=_reject_constant, parse_float=_parse_finite
)
