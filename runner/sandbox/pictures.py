"""Images in the body of a Kling request, as Base64: their validation, and the hashes of their bytes."""

import binascii
from base64 import b64decode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

FIELDS = ("image", "image_tail", "static_mask")


def wrong(body: Mapping[str, Any]) -> str | None:
    """Return the first image field that holds neither a URL nor Base64, or None."""
    values = ((field, body.get(field)) for field in FIELDS)
    return next((field for field, value in values if value and not _is_url(value) and _decoded(value) is None), None)


def pictures(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of every image in a body, by its field."""
    images = {field: _decoded(body[field]) for field in FIELDS if body.get(field) and not _is_url(body[field])}
    return {field: sha256(data).hexdigest() for field, data in images.items() if data is not None}


def _is_url(value: object) -> bool:
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def _decoded(value: object) -> bytes | None:
    try:
        return b64decode(value, validate=True) if isinstance(value, str) else None
    except (binascii.Error, ValueError):
        return None
