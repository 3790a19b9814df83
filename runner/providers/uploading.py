"""Build the requests of an upload and read their responses. The bytes in between are sent by `net.upload`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from runner.lifecycle.events import Setback
from runner.lifecycle.task import Fault
from runner.providers.evidence import fault_of, scope
from runner.providers.exchange import Reply, Request
from runner.providers.expressions import compiled
from runner.providers.reading import query_setback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.lifecycle.events import Blocked
    from runner.providers.exchange import Outcome
    from runner.providers.pictures import Picture
    from runner.providers.spec import Spec, Upload

_EXTENSIONS = {"png": "png", "jpeg": "jpg", "webp": "webp"}
#: characters of a URL, an id or a header
_LONGEST = 4096
_MOST_HEADERS = 20


@dataclass(frozen=True, slots=True)
class Place:
    """Destination of the bytes of one file, and the URL that a request will hold."""

    file_id: str
    #: signed URL of the PUT, a secret: its holder can write there
    put: str = field(repr=False)
    media_type: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def ask_place(upload: Upload, image: Picture) -> Request:
    """Return the request for an upload target. The file is named after its content, so that no personal name leaks."""
    name = f"{image.sha256[:32]}.{_EXTENSIONS[image.kind]}"
    return Request("query", "GET", upload.path.replace("{name}", quote(name, safe="")), "upload")


def read_place(spec: Spec, upload: Upload, outcome: Outcome) -> Place | Setback | Blocked:
    """Return the upload target, or the event if the provider gives none."""
    if not isinstance(outcome, Reply) or not compiled(upload.valid).holds(scope(outcome)):
        return query_setback(spec, outcome)
    seen = scope(outcome)
    texts = [_text(compiled(each).search(seen)) for each in (upload.id, upload.put, upload.media_type, upload.url)]
    if not all(texts):
        return Setback("trouble", Fault("upload", None, "the answer names no place, or no type, for the file"))
    file_id, put, media_type, url = texts
    return Place(
        file_id, put, media_type, url, _headers(compiled(upload.headers).search(seen)) if upload.headers else {}
    )


def ask_ready(upload: Upload, file_id: str) -> Request:
    """Return the query for the status of an uploaded file."""
    return Request("query", "GET", upload.detail.replace("{id}", quote(file_id, safe="")), "upload")


def read_ready(spec: Spec, upload: Upload, outcome: Outcome) -> Literal["ready", "pending"] | Fault | Setback | Blocked:
    """Return the status of an uploaded file.

    A TaskError means that its content is rejected, a RetryableFailure that it must be uploaded again.
    """
    if not isinstance(outcome, Reply):
        return query_setback(spec, outcome)
    seen = scope(outcome)
    if compiled(upload.ready).holds(seen):
        return "ready"
    if compiled(upload.pending).holds(seen):
        return "pending"
    if compiled(upload.refused).holds(seen):
        return Fault("moderation", fault_of(outcome, "").code, "the provider does not take this picture's content")
    return query_setback(spec, outcome)


def _text(value: Any) -> str:
    """Return an id or a URL as text, or an empty string if it is none or cannot be sent in a header."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text if text.isascii() and text.isprintable() and len(text) <= _LONGEST and " " not in text else ""


def _headers(value: Any) -> dict[str, str]:
    """Return the `x-…` headers, which belong to the storage service: no credentials, no host, no length."""
    pairs = list(value.items())[:_MOST_HEADERS] if isinstance(value, dict) else []
    return {
        name.lower(): each
        for name, each in pairs
        if name.lower().startswith("x-") and _text(name) and isinstance(each, str) and each.isascii()
        and each.isprintable() and len(each) <= _LONGEST
    }  # fmt: skip
