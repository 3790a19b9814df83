"""What the page knows of a task: the promised line of results.jsonl, short enough for ten thousand of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from runner.report.results import line

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

#: what stands in a card, in this order; the page is told these names
FIELDS = (
    *("key", "index", "repeat", "provider", "model", "state", "id", "vars", "request", "outputs", "error"),
    *("attempts", "cost", "queued", "submitted", "finished"),
)
#: hexadecimal digits of a content's hash that name its thumbnail
_NAME = 24
_ERROR = ("reason", "code", "message")
#: what could end a script, begin markup or break a line of JavaScript, and how JSON may say it instead
_ESCAPES = {
    b"<": b"\\u003c",
    b">": b"\\u003e",
    b"&": b"\\u0026",
    "\u2028".encode(): b"\\u2028",
    "\u2029".encode(): b"\\u2029",
}


def thumbnail(sha256: str) -> str:
    """The name of a content's thumbnail, without extension."""
    return sha256[:_NAME]


def card(row: Mapping[str, Any], made: Collection[str]) -> list[Any]:
    """A row of the store in the order of FIELDS; `made` are the names of the files that hold thumbnails.

    `vars` and `request` are JSON within the JSON, so that a browser does not round their large numbers.
    """
    told = line(row)
    return [
        *(told[name] for name in ("key", "index", "repeat", "provider", "model", "state", "remote_id")),
        orjson.dumps(told["vars"]).decode(),
        orjson.dumps(told["request"]).decode(),
        [_output(output, made) for output in told["outputs"]],
        [told["error"][name] for name in _ERROR] if told["error"]["reason"] else None,
        *(told[name] for name in ("attempts", "cost", "queued_at", "submitted_at", "finished_at")),
    ]


def _output(output: Mapping[str, Any], made: Collection[str]) -> list[Any]:
    """File, bytes, type and thumbnail: its name, false where there can be none, null where none was made yet."""
    name = thumbnail(output["sha256"] or "")
    found = f"{name}.webp" if f"{name}.webp" in made else False if f"{name}.none" in made else None
    return [output["file"], output["bytes"], output["media_type"], found if name else None]


def harmless_json(value: Any) -> bytes:
    """JSON that is the same as JavaScript and as the text of a script element, whatever it holds (X28)."""
    text = orjson.dumps(value)
    for char, escape in _ESCAPES.items():
        text = text.replace(char, escape)
    return text
