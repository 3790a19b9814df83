"""Chanjing's uploads: a signed address, the bytes, and a while until the file is ready. Only hashes are kept."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from runner.sandbox.messages import Answer, Request, as_text
from runner.sandbox.world import World

PREFIX = "/uploads/"
#: Seconds for which a signed address takes bytes.
LIFE_S = 900.0
#: Contents with this are refused once they are looked at.
FORBIDDEN = b"NSFW-TEST"
PENDING, READY, REFUSED = 0, 1, 98
TYPES = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "mp4": "video/mp4"}
CREDENTIALS = {"authorization", "access_token", "cookie"}
#: Fields of a submit that hold pictures.
FIELDS = ("ref_img_url", "start_frame", "end_frame")


@dataclass(slots=True)
class File:
    """A file that was promised, and perhaps has come."""

    account: str
    key: str
    mime_type: str
    signature: str
    until: float
    #: When its bytes came.
    at: float | None = None
    sha256: str = ""
    refused: bool = False


class Uploads:
    """The files of all accounts, by id."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._files: dict[str, File] = {}
        self._by_key: dict[str, File] = {}

    def promise(self, account: str, name: str) -> dict[str, str] | None:
        """Return where a file of this name goes; None for a kind that is not taken."""
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
        """Take the bytes, if they come as the signature says."""
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
        """Return how a file is doing; None for one that the account does not have."""
        file = self._files.get(file_id)
        if file is None or file.account != account:
            return None
        if file.at is None or self._world.clock() < file.at + self._world.options.upload_s:
            return PENDING
        return REFUSED if file.refused else READY

    def pictures(self, asked: Mapping[str, Any]) -> dict[str, str]:
        """Return the hash of every uploaded picture that a submit names, by its place."""
        found = {}
        for field in FIELDS:
            value = asked.get(field)
            for number, url in enumerate(value if isinstance(value, list) else [value]):
                file = self._by_key.get(str(url).removeprefix(f"{self._world.url}{PREFIX}"))
                if file is not None and file.sha256:
                    found[f"{field}/{number}" if isinstance(value, list) else field] = file.sha256
        return found


def _refusal(code: str) -> Answer:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code></Error>'
    return as_text(text, 403).with_(content_type="application/xml")
