"""Check of Kling's credentials: an API key, or a JSON Web Token (JWT) signed with a secret key."""

import hmac
import json
from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from hashlib import sha256
from typing import Any

from runner.sandbox.messages import Request

#: The only pair whose signatures are checked. The secrets of other access keys are unknown.
ACCESS_KEY, SECRET_KEY = "sandbox-ak", "sandbox-sk"
EMPTY, INVALID, NOT_YET, EXPIRED = 1001, 1002, 1003, 1004
JWT_PARTS = 3


def holder(request: Request, now: float) -> str | int:
    """Return the account of the request's credential, or the code of the refusal. `now` is a Unix time."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if not scheme:
        return EMPTY
    if scheme.lower() != "bearer" or not key:
        return INVALID
    return _jwt_holder(key, now) if key.count(".") == JWT_PARTS - 1 else _key_holder(key)


def gateway_holder(request: Request) -> str | int:
    """Return the account of a gateway request's key, or the code of the refusal. The word `Bearer` is optional."""
    value = request.headers.get("authorization", "")
    return _key_holder(value.removeprefix("Bearer ").strip()) if value else EMPTY


def _key_holder(key: str) -> str | int:
    """Return a digest of the key as the account. The ledger holds the account and must not hold a user's real key."""
    return INVALID if not key or "wrong" in key else f"key-{sha256(key.encode()).hexdigest()[:16]}"


def _jwt_holder(token: str, now: float) -> str | int:
    try:
        header, claims = (_decoded(part) for part in token.split(".")[:2])
        issuer, end, start = str(claims["iss"]), float(claims["exp"]), float(claims.get("nbf", 0))
    except (ValueError, KeyError, TypeError, Base64Error):
        return INVALID
    if header.get("alg") != "HS256" or not issuer or "wrong" in issuer or not _signed(token, issuer):
        return INVALID
    if now < start:
        return NOT_YET
    return EXPIRED if now >= end else issuer


def _decoded(part: str) -> dict[str, Any]:
    value = json.loads(_bytes(part))
    if not isinstance(value, dict):
        raise TypeError("a part of a JWT is a JSON object")
    return value


def _signed(token: str, issuer: str) -> bool:
    if issuer != ACCESS_KEY:
        return True
    content, _, signature = token.rpartition(".")
    expected = hmac.digest(SECRET_KEY.encode(), content.encode(), "sha256")
    try:
        return hmac.compare_digest(expected, _bytes(signature))
    except Base64Error:
        return False


def _bytes(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))
