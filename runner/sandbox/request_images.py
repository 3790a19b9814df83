"""Images in the body of a Kling request, as Base64: their validation, and the hashes of their bytes."""

import binascii
from base64 import b64decode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

IMAGE_FIELDS = ("image", "image_tail", "static_mask")


def malformed_image_field(body: Mapping[str, Any]) -> str | None:
    """Return the first image field that holds neither a URL nor Base64, or None."""
    values = ((field, body.get(field)) for field in IMAGE_FIELDS)
    return next(
        (field for field, value in values if value and not _is_url(value) and _decode_base64(value) is None), None
    )


def image_hashes(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of every image in a body, by its field."""
    images = {
        field: _decode_base64(body[field]) for field in IMAGE_FIELDS if body.get(field) and not _is_url(body[field])
    }
    return {field: sha256(data).hexdigest() for field, data in images.items() if data is not None}


def _is_url(value: object) -> bool:
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def _decode_base64(value: object) -> bytes | None:
    try:
        return b64decode(value, validate=True) if isinstance(value, str) else None
    except (binascii.Error, ValueError):
        return None
