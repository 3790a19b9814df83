"""Build the requests of an upload and read their responses. The bytes in between are sent by `net.upload`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from runner.providers.expressions import compile_expression
from runner.providers.requests import Reply, Request
from runner.providers.responses import error_from_reply, query_failure, scope
from runner.tasks.events import RetryableFailure
from runner.tasks.models import TaskError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.providers.images import ImageInfo
    from runner.providers.requests import Outcome
    from runner.providers.spec import Spec, UploadSpec
    from runner.tasks.events import AccountBlocked

_EXTENSIONS = {"png": "png", "jpeg": "jpg", "webp": "webp"}
#: largest length of a URL, an id or a header, in characters
_MAX_FIELD = 4096
_MAX_HEADERS = 20


@dataclass(frozen=True, slots=True)
class UploadTarget:
    """Destination of the bytes of one file, and the URL that a request will hold."""

    file_id: str
    #: signed URL of the PUT, a secret: its holder can write there
    put_url: str = field(repr=False)
    media_type: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def target_request(upload: UploadSpec, image: ImageInfo) -> Request:
    """Return the request for an upload target. The file is named after its content, so that no personal name leaks."""
    name = f"{image.sha256[:32]}.{_EXTENSIONS[image.kind]}"
    return Request("query", "GET", upload.path.replace("{name}", quote(name, safe="")), "upload")


def read_target(spec: Spec, upload: UploadSpec, outcome: Outcome) -> UploadTarget | RetryableFailure | AccountBlocked:
    """Return the upload target, or the event if the provider gives none."""
    if not isinstance(outcome, Reply) or not compile_expression(upload.valid).is_true(scope(outcome)):
        return query_failure(spec, outcome)
    seen = scope(outcome)
    texts = [
        _safe_text(compile_expression(each).search(seen))
        for each in (upload.id, upload.put, upload.media_type, upload.url)
    ]
    if not all(texts):
        error = TaskError("upload", None, "the answer names no place, or no type, for the file")
        return RetryableFailure("trouble", error)
    headers = _storage_headers(compile_expression(upload.headers).search(seen)) if upload.headers else {}
    file_id, put, media_type, url = texts
    return UploadTarget(file_id, put, media_type, url, headers)


def status_request(upload: UploadSpec, file_id: str) -> Request:
    """Return the query for the status of an uploaded file."""
    return Request("query", "GET", upload.detail.replace("{id}", quote(file_id, safe="")), "upload")


def read_status(
    spec: Spec, upload: UploadSpec, outcome: Outcome
) -> Literal["ready", "pending"] | TaskError | RetryableFailure | AccountBlocked:
    """Return the status of an uploaded file.

    A TaskError means that its content is rejected, a RetryableFailure that it must be uploaded again.
    """
    if not isinstance(outcome, Reply):
        return query_failure(spec, outcome)
    seen = scope(outcome)
    if compile_expression(upload.ready).is_true(seen):
        return "ready"
    if compile_expression(upload.pending).is_true(seen):
        return "pending"
    if compile_expression(upload.refused).is_true(seen):
        code = error_from_reply(outcome, "").code
        return TaskError("moderation", code, "the provider does not take this picture's content")
    return query_failure(spec, outcome)


def _safe_text(value: Any) -> str:
    """Return an id or a URL as text, or an empty string if it is none or cannot be sent in a header."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text if text.isascii() and text.isprintable() and len(text) <= _MAX_FIELD and " " not in text else ""


def _storage_headers(value: Any) -> dict[str, str]:
    """Return the `x-…` headers, which belong to the storage service: no credentials, no host, no length."""
    pairs = list(value.items())[:_MAX_HEADERS] if isinstance(value, dict) else []
    return {
        name.lower(): each
        for name, each in pairs
        if name.lower().startswith("x-") and _safe_text(name) and isinstance(each, str) and each.isascii()
        and each.isprintable() and len(each) <= _MAX_FIELD
    }  # fmt: skip
