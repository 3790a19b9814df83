"""Check of Kling's credentials: an API key, or a JSON Web Token (JWT) signed with a secret key."""

import hmac
import json
from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from hashlib import sha256
from typing import Any

from runner.sandbox.messages import SandboxRequest

#: The only pair whose signatures are checked. The secrets of other access keys are unknown.
ACCESS_KEY, SECRET_KEY = "sandbox-ak", "sandbox-sk"
EMPTY, INVALID, NOT_YET, EXPIRED = 1001, 1002, 1003, 1004
JWT_PARTS = 3


def identify_account(request: SandboxRequest, now: float) -> str | int:
    """Return the account of the request's credential, or the code of the refusal. `now` is a Unix time."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if not scheme:
        return EMPTY
    if scheme.lower() != "bearer" or not key:
        return INVALID
    return _account_of_jwt(key, now) if key.count(".") == JWT_PARTS - 1 else _account_of_key(key)


def identify_gateway_account(request: SandboxRequest) -> str | int:
    """Return the account of a gateway request's key, or the code of the refusal. The word `Bearer` is optional."""
    value = request.headers.get("authorization", "")
    return _account_of_key(value.removeprefix("Bearer ").strip()) if value else EMPTY


def _account_of_key(key: str) -> str | int:
    """Return a digest of the key as the account. The ledger holds the account and must not hold a user's real key."""
    return INVALID if not key or "wrong" in key else f"key-{sha256(key.encode()).hexdigest()[:16]}"


def _account_of_jwt(token: str, now: float) -> str | int:
    try:
        header, claims = (_decode_json_part(part) for part in token.split(".")[:2])
        issuer, end, start = str(claims["iss"]), float(claims["exp"]), float(claims.get("nbf", 0))
    except (ValueError, KeyError, TypeError, Base64Error):
        return INVALID
    if header.get("alg") != "HS256" or not issuer or "wrong" in issuer or not _has_valid_signature(token, issuer):
        return INVALID
    if now < start:
        return NOT_YET
    return EXPIRED if now >= end else issuer


def _decode_json_part(part: str) -> dict[str, Any]:
    value = json.loads(_decode_base64url(part))
    if not isinstance(value, dict):
        raise TypeError("a part of a JWT is a JSON object")
    return value


def _has_valid_signature(token: str, issuer: str) -> bool:
    if issuer != ACCESS_KEY:
        return True
    content, _, signature = token.rpartition(".")
    expected = hmac.digest(SECRET_KEY.encode(), content.encode(), "sha256")
    try:
        return hmac.compare_digest(expected, _decode_base64url(signature))
    except Base64Error:
        return False


def _decode_base64url(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))
