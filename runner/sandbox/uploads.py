"""Chanjing's uploads: a signed URL, the bytes, and a delay until the file is ready.

The contents are not kept, only their hashes.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from runner.sandbox.messages import Answer, Request, as_text
from runner.sandbox.world import World

PREFIX = "/uploads/"
#: Seconds for which a signed URL takes bytes.
LIFE_S = 900.0
#: Mark in contents that the check refuses.
FORBIDDEN = b"NSFW-TEST"
PENDING, READY, REFUSED = 0, 1, 98
TYPES = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "mp4": "video/mp4"}
CREDENTIALS = {"authorization", "access_token", "cookie"}
#: Fields of a submit that hold URLs of images.
FIELDS = ("ref_img_url", "start_frame", "end_frame")


@dataclass(slots=True)
class File:
    """A file that has a signed URL. Its bytes may have arrived."""

    account: str
    key: str
    mime_type: str
    signature: str
    #: Expiry of the signed URL (Unix time, seconds).
    until: float
    #: Time when the bytes arrived (Unix time, seconds).
    at: float | None = None
    sha256: str = ""
    #: True: the content check refuses the file.
    refused: bool = False


class Uploads:
    """The upload host, with the files of all accounts by id."""

    def __init__(self, state: World) -> None:
        self._world = state
        self._files: dict[str, File] = {}
        self._by_key: dict[str, File] = {}

    def promise(self, account: str, name: str) -> dict[str, str] | None:
        """Create an upload for a file of this name. Return its URLs and its id, or None if its type is not allowed."""
        mime_type = TYPES.get(name.rpartition(".")[2].lower())
        if mime_type is None:
            return None
        key, signature = f"{secrets.token_hex(8)}-{name[-64:]}", secrets.token_hex(16)
        file = File(account, key, mime_type, signature, self._world.clock() + LIFE_S)
        self._files[file_id := secrets.token_hex(12)] = self._by_key[key] = file
        url = f"{self._world.url}{PREFIX}{key}"
        signed = f"{url}?signature={signature}"
        return {"sign_url": signed, "full_path": url, "key": key, "mime_type": mime_type, "file_id": file_id}

    def put(self, request: Request) -> Answer:
        """Answer the upload of the bytes, which must have the signature and the content type of the signed URL."""
        self._world.traffic.arrived("PUT /uploads", self._world.clock())
        if not CREDENTIALS.isdisjoint(request.headers):
            self._world.traffic.counts["uploads_with_credentials"] += 1
        file = self._by_key.get(request.path.removeprefix(PREFIX))
        signed = file is not None and request.query.get("signature") == file.signature
        if file is None or request.method != "PUT" or not signed or self._world.clock() > file.until:
            return _refusal("AccessDenied")
        if request.headers.get("content-type", "") != file.mime_type:
            return _refusal("SignatureDoesNotMatch")
        file.at, file.sha256 = self._world.clock(), sha256(request.body).hexdigest()
        file.refused = FORBIDDEN in request.body
        self._world.traffic.counts["uploads"] += 1
        return Answer(content_type="text/plain")

    def status(self, account: str, file_id: str) -> int | None:
        """Return the status of a file, or None if the account has no such file."""
        file = self._files.get(file_id)
        if file is None or file.account != account:
            return None
        if file.at is None or self._world.clock() < file.at + self._world.options.upload_s:
            return PENDING
        return REFUSED if file.refused else READY

    def pictures(self, fields: Mapping[str, Any]) -> dict[str, str]:
        """Return the SHA-256 of every uploaded image in the fields of a submit, by its position."""
        hashes = {}
        for field in FIELDS:
            value = fields.get(field)
            for number, url in enumerate(value if isinstance(value, list) else [value]):
                file = self._by_key.get(str(url).removeprefix(f"{self._world.url}{PREFIX}"))
                if file is not None and file.sha256:
                    hashes[f"{field}/{number}" if isinstance(value, list) else field] = file.sha256
        return hashes


def _refusal(code: str) -> Answer:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code></Error>'
    return as_text(text, 403).with_(content_type="application/xml")
