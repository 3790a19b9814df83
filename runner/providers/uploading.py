"""The questions of an upload and what their answers say; the bytes in between are sent by `net.upload`."""

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
#: characters of an address, an id or a header
_LONGEST = 4096
_MOST_HEADERS = 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of one file go, and what a request will hold."""

    file_id: str
    #: signed: whoever has it can write there
    put: str = field(repr=False)
    media_type: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def ask_place(upload: Upload, picture: Picture) -> Request:
    """The question where this picture may go; it is named after its content, so that no name of a person leaves."""
    name = f"{picture.sha256[:32]}.{_EXTENSIONS[picture.kind]}"
    return Request("query", "GET", upload.path.replace("{name}", quote(name, safe="")), "upload")


def read_place(spec: Spec, upload: Upload, outcome: Outcome) -> Place | Setback | Blocked:
    """The place, or why there is none."""
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
    """The question whether the file is there."""
    return Request("query", "GET", upload.detail.replace("{id}", quote(file_id, safe="")), "upload")


def read_ready(spec: Spec, upload: Upload, outcome: Outcome) -> Literal["ready", "pending"] | Fault | Setback | Blocked:
    """How the file is doing; a Fault: its content is not taken, a Setback: it has to be uploaded anew."""
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
    """An id or an address as text; empty where it is none, or none that can be sent."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text if text.isascii() and text.isprintable() and len(text) <= _LONGEST and " " not in text else ""


def _headers(value: Any) -> dict[str, str]:
    """Only those that a storage service calls its own: no credential, no host, no length."""
    pairs = list(value.items())[:_MOST_HEADERS] if isinstance(value, dict) else []
    return {
        name.lower(): each
        for name, each in pairs
        if name.lower().startswith("x-") and _text(name) and isinstance(each, str) and each.isascii()
        and each.isprintable() and len(each) <= _LONGEST
    }  # fmt: skip
