"""Who a task is: the same content is the same task forever, whatever it is called and wherever it stands."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping


def key(provider: str, operation: str, model: str, request: Mapping[str, Any], repeat: int) -> str:
    """32 hex digits of SHA-256 over orjson's bytes with sorted keys; TypeError for what JSON cannot say."""
    content = orjson.dumps([provider, operation, model, request, repeat], option=orjson.OPT_SORT_KEYS)
    return sha256(content).hexdigest()[:32]
