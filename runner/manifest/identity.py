"""Compute two hashes of a task: its key, of what is sent, and its goods, of what the manifest asks for.

The key names a task: the same request has the same key in every version. The goods recognise a purchase. Line ends,
the composition of letters, blanks at the ends, and values that a parameter has anyway do not count for them, so an
edit that nobody sees buys nothing. The name of a task and its position in the manifest count for neither.
"""

from __future__ import annotations

import unicodedata
from hashlib import blake2b, sha256
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

#: bytes of a key and of goods
HASH_BYTES = 16
#: byte order mark, which is also an invisible character without a meaning
_BOM = "\ufeff"
#: bound of the whole numbers that floats hold exactly
_EXACT = 2.0**53


def task_key(provider: str, operation: str, model: str, request: Mapping[str, Any], repeat: int) -> str:
    """Return 32 hex digits of SHA-256 over the content as orjson writes it, with sorted keys.

    Raise TypeError for content that JSON cannot represent.
    """
    return sha256(key_content(provider, operation, model, request, repeat)).hexdigest()[: 2 * HASH_BYTES]


def key_content(provider: str, operation: str, model: str, request: Mapping[str, Any], repeat: int) -> bytes:
    """Return what the key is the hash of: the content as orjson writes it, with sorted keys."""
    return orjson.dumps([provider, operation, model, request, repeat], option=orjson.OPT_SORT_KEYS)


def task_goods(
    provider: str, endpoint: str, model: str, request: Mapping[str, Any], repeat: int, implied: Mapping[str, Any]
) -> str:
    """Return 32 hex digits of a hash over the canonical content: what is bought, however it is written.

    `endpoint` is where the request is sent, whatever the spec calls it. `implied` holds, in canonical form, the value
    of each parameter that the manifest need not set: these values do not count. Raise TypeError for content that JSON
    cannot represent.
    """
    value: Any
    said = {}
    for name, written in request.items():
        # the shortest way for most values, since this is done for every row of a table
        if type(written) is str and written.isascii() and written.isprintable():
            value = written.strip()
        else:
            value = written if type(written) is int else canonical(written)
        if name not in implied or value != implied[name]:
            said[name] = value
    return blake2b(goods_content(provider, endpoint, model, said, repeat), digest_size=HASH_BYTES).hexdigest()


def goods_content(provider: str, endpoint: str, model: str, said: Mapping[str, Any], repeat: int) -> bytes:
    """Return what the goods are the hash of. `said` holds the canonical values that count."""
    return orjson.dumps([provider, endpoint, model, said, repeat], option=orjson.OPT_SORT_KEYS)


def canonical(value: Any) -> Any:
    """Return a value as `task_goods` compares it, at any depth: text without what cannot be seen, numbers by value."""
    if isinstance(value, str):
        return canonical_text(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= _EXACT else value
    if isinstance(value, dict):
        return {name: canonical(each) for name, each in value.items()}
    if isinstance(value, list):
        return [canonical(each) for each in value]
    return value


def canonical_text(text: str) -> str:
    """Return text in NFC with LF at line ends, without byte order marks and without blanks at the ends of its lines.

    Blanks and empty lines at either end of the text are removed as well. Letter case, blanks between words, quotes and
    dashes stay: these are what is asked for.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.replace(_BOM, ""))
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = text.strip()
    return "\n".join([line.rstrip() for line in text.split("\n")]) if "\n" in text else text
