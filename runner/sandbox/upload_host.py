"""Chanjing's uploads: a signed URL, the bytes, and a delay until the file is ready.

The contents are not kept, only their hashes.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from runner.sandbox.messages import SandboxRequest, SandboxResponse, text_response
from runner.sandbox.state import SandboxState

PREFIX = "/uploads/"
#: Seconds for which a signed URL takes bytes.
SIGNATURE_LIFE_S = 900.0
#: Mark in contents that the check refuses.
FORBIDDEN = b"NSFW-TEST"
PENDING, READY, REFUSED = 0, 1, 98
MIME_TYPES = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "mp4": "video/mp4"}
CREDENTIALS = {"authorization", "access_token", "cookie"}
#: Fields of a submit that hold URLs of images.
IMAGE_FIELDS = ("ref_img_url", "start_frame", "end_frame")


@dataclass(slots=True)
class SignedUpload:
    """A file that has a signed URL. Its bytes may have arrived."""

    account: str
    key: str
    mime_type: str
    signature: str
    #: Expiry of the signed URL (Unix time, seconds).
    expires: float
    #: Time when the bytes arrived (Unix time, seconds).
    received_at: float | None = None
    sha256: str = ""
    #: True: the content check refuses the file.
    refused: bool = False


class UploadHost:
    """The upload host, with the files of all accounts by id."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state
        self._files: dict[str, SignedUpload] = {}
        self._by_key: dict[str, SignedUpload] = {}

    def create_upload(self, account: str, name: str) -> dict[str, str] | None:
        """Create an upload for a file of this name. Return its URLs and its id, or None if its type is not allowed."""
        mime_type = MIME_TYPES.get(name.rpartition(".")[2].lower())
        if mime_type is None:
            return None
        key, signature = f"{secrets.token_hex(8)}-{name[-64:]}", secrets.token_hex(16)
        file = SignedUpload(account, key, mime_type, signature, self._state.clock() + SIGNATURE_LIFE_S)
        self._files[file_id := secrets.token_hex(12)] = self._by_key[key] = file
        url = f"{self._state.url}{PREFIX}{key}"
        signed = f"{url}?signature={signature}"
        return {"sign_url": signed, "full_path": url, "key": key, "mime_type": mime_type, "file_id": file_id}

    def receive(self, request: SandboxRequest) -> SandboxResponse:
        """Answer the upload of the bytes, which must have the signature and the content type of the signed URL."""
        self._state.counters.record_arrival("PUT /uploads", self._state.clock())
        if not CREDENTIALS.isdisjoint(request.headers):
            self._state.counters.counts["uploads_with_credentials"] += 1
        file = self._by_key.get(request.path.removeprefix(PREFIX))
        signed = file is not None and request.query.get("signature") == file.signature
        if file is None or request.method != "PUT" or not signed or self._state.clock() > file.expires:
            return _xml_error("AccessDenied")
        if request.headers.get("content-type", "") != file.mime_type:
            return _xml_error("SignatureDoesNotMatch")
        file.received_at, file.sha256 = self._state.clock(), sha256(request.body).hexdigest()
        file.refused = FORBIDDEN in request.body
        self._state.counters.counts["uploads"] += 1
        return SandboxResponse(content_type="text/plain")

    def status(self, account: str, file_id: str) -> int | None:
        """Return the status of a file, or None if the account has no such file."""
        file = self._files.get(file_id)
        if file is None or file.account != account:
            return None
        if file.received_at is None or self._state.clock() < file.received_at + self._state.options.upload_s:
            return PENDING
        return REFUSED if file.refused else READY

    def image_hashes(self, fields: Mapping[str, Any]) -> dict[str, str]:
        """Return the SHA-256 of every uploaded image in the fields of a submit, by its position."""
        hashes = {}
        for field in IMAGE_FIELDS:
            value = fields.get(field)
            for number, url in enumerate(value if isinstance(value, list) else [value]):
                file = self._by_key.get(str(url).removeprefix(f"{self._state.url}{PREFIX}"))
                if file is not None and file.sha256:
                    hashes[f"{field}/{number}" if isinstance(value, list) else field] = file.sha256
        return hashes


def _xml_error(code: str) -> SandboxResponse:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code></Error>'
    return text_response(text, 403).with_(content_type="application/xml")
