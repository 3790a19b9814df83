"""Decompression of response bodies within a size limit, and JSON parsing: strict for what is paid, else like a browser.

Both are needed because the other side is not trusted. A gzip bomb of 972 KB expands to 1 GB. Python's JSON parser keeps
the last of two equal keys, accepts NaN and lone surrogates (which SQLite then refuses), and raises four different
exceptions. The answer to a submit that is no JSON in the strict sense is in doubt; elsewhere the last of two equal keys
counts, as in browsers, and what JSON does not allow is borne.
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
#: encodings that are read, and others that an error may name; any other text of a header may echo a credential
_INFLATED, _NAMED_ENCODINGS = frozenset({"gzip", "x-gzip", "deflate"}), frozenset({"br", "zstd", "compress"})
#: characters that are kept of a body that is not JSON
TEXT_LIMIT = 2000


class UnreadableBodyError(Exception):
    """A body that cannot be decompressed or exceeds the size limit."""


def read_coding(header: str) -> str:
    """Return the coding that a Content-Encoding header names, or "" if it names none: then the bytes decide.

    Object stores hand on whatever was written there at an upload, such as `UTF-8`.
    """
    coding = header.strip().lower()
    return coding if coding in _INFLATED or coding in _NAMED_ENCODINGS or "," in coding else ""


class Inflater:
    """Streaming decompressor for a Content-Encoding, with at most 1 MiB per piece and `limit` bytes in total.

    Raises UnreadableBodyError for an encoding that it cannot read, a damaged stream or too many bytes.
    """

    def __init__(self, encoding: str, limit: int) -> None:
        coding = read_coding(encoding)
        self._is_compressed = coding != ""
        self._limit = limit
        self._total = 0
        self._raw_deflate = False
        if not self._is_compressed:
            return
        if coding not in _INFLATED:
            raise UnreadableBodyError(
                f"content encoding {coding!r}" if coding in _NAMED_ENCODINGS else "several content encodings"
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


def parse_body(raw: bytes, *, strict: bool = True) -> Any:
    """Return the value of JSON, or else the body as text of at most 2,000 characters that SQLite can store.

    Unless `strict`, the last of two equal keys counts, numbers that are none are None, and control characters and bytes
    that are no text are borne.
    """
    try:
        text = raw.decode("utf-8-sig", "strict" if strict else "replace")
        has_escapes = "\\u" in text
        if has_escapes and strict:
            orjson.loads(text)  # raises on lone surrogates
        value = (_DECODER if strict else _LENIENT_DECODER).decode(text)
        return _without_surrogates(value) if has_escapes and not strict else value
    except (ValueError, RecursionError):
        return raw[: TEXT_LIMIT * 4].decode("utf-8", "backslashreplace")[:TEXT_LIMIT]


def _without_surrogates(value: Any) -> Any:
    """Return a value with a question mark for each lone surrogate, which no database takes."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case list():
            return [_without_surrogates(each) for each in value]
        case dict():
            return {_without_surrogates(name): _without_surrogates(each) for name, each in value.items()}
        case _:
            return value


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
_LENIENT_DECODER = json.JSONDecoder(
    parse_constant=lambda _: None,
    parse_float=lambda text: value if math.isfinite(value := float(text)) else None,
    strict=False,
)
