"""Encode tasks for the gallery page: the documented line of results.jsonl in a compact form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from runner.report.results import line

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

#: fields of a card in their order; the page receives these names
FIELDS = (
    *("key", "index", "repeat", "provider", "model", "state", "id", "vars", "request", "outputs", "error"),
    *("attempts", "cost", "queued", "submitted", "finished"),
)
#: hexadecimal digits of a file's SHA-256 that name its thumbnail
_NAME = 24
_ERROR = ("reason", "code", "message")
#: characters that could end a script, begin markup or break a line of JavaScript, with their JSON escapes
_ESCAPES = {
    b"<": b"\\u003c",
    b">": b"\\u003e",
    b"&": b"\\u0026",
    "\u2028".encode(): b"\\u2028",
    "\u2029".encode(): b"\\u2029",
}


def thumbnail(sha256: str) -> str:
    """Return the name of the thumbnail for a file's SHA-256, without extension."""
    return sha256[:_NAME]


def card(row: Mapping[str, Any], file_names: Collection[str]) -> list[Any]:
    """Return a row of the store in the order of CARD_FIELDS; `file_names` are the names in the gallery directory.

    `vars` and `request` are JSON within the JSON, so that a browser does not round their large numbers.
    """
    result = line(row)
    return [
        *(result[name] for name in ("key", "index", "repeat", "provider", "model", "state", "remote_id")),
        orjson.dumps(result["vars"]).decode(),
        orjson.dumps(result["request"]).decode(),
        [_output(output, file_names) for output in result["outputs"]],
        [result["error"][name] for name in _ERROR] if result["error"]["reason"] else None,
        *(result[name] for name in ("attempts", "cost", "queued_at", "submitted_at", "finished_at")),
    ]


def _output(output: Mapping[str, Any], file_names: Collection[str]) -> list[Any]:
    """Return file, bytes, media type and thumbnail of an output.

    The thumbnail is its file name, False if the file cannot be decoded, or None if it was not made yet.
    """
    name = thumbnail(output["sha256"] or "")
    thumbnail_file = f"{name}.webp" if f"{name}.webp" in file_names else False if f"{name}.none" in file_names else None
    return [output["file"], output["bytes"], output["media_type"], thumbnail_file if name else None]


def harmless_json(value: Any) -> bytes:
    """Return JSON that no value can end early, neither as JavaScript nor as the text of a script element."""
    text = orjson.dumps(value)
    for char, escape in _ESCAPES.items():
        text = text.replace(char, escape)
    return text
