"""Compute the key of a task from its content.

The same content has the same key in every version. The name of a task and its position in the manifest do not count.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping


def key(provider: str, operation: str, model: str, request: Mapping[str, Any], repeat: int) -> str:
    """Return 32 hex digits of SHA-256 over the content as orjson writes it, with sorted keys.

    Raise TypeError for content that JSON cannot represent.
    """
    content = orjson.dumps([provider, operation, model, request, repeat], option=orjson.OPT_SORT_KEYS)
    return sha256(content).hexdigest()[:32]
