"""Names of outputs: one safe path component each, whatever a template or a prompt made of it."""

from __future__ import annotations

import re
import unicodedata

#: bytes of UTF-8; leaves room for `-2`, an extension and `.part` within 255
MAX_BYTES = 180
_UNSAFE = re.compile(r"(?:[^\w.-]|_)+")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)[0-9¹²³])(?:\..*)?", re.IGNORECASE | re.DOTALL)


def slug(text: str) -> str:
    """`text` as a file name without extension: NFC; letters, digits and `_.-` only, at most 180 bytes, never empty."""
    name = _UNSAFE.sub("_", unicodedata.normalize("NFC", text)).lstrip(".-")
    if _RESERVED.fullmatch(name):
        name = "_" + name
    if len(name) > MAX_BYTES // 4:
        name = name.encode()[:MAX_BYTES].decode(errors="ignore")
    name = name.rstrip("._-")
    return ("_" + name if _RESERVED.fullmatch(name) else name) or "_"


def folded(name: str) -> str:
    """What file systems that ignore case and composition take for the same name."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
