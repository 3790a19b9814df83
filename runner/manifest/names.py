"""Turn any text into one safe path component, for the names of outputs."""

from __future__ import annotations

import re
import unicodedata

#: largest length of a name in bytes of UTF-8; leaves room for `-2`, an extension and `.part` within 255
MAX_BYTES = 180
_UNSAFE = re.compile(r"(?:[^\w.-]|_)+")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)[0-9¹²³])(?:\..*)?", re.IGNORECASE | re.DOTALL)


def slug(text: str) -> str:
    """Return `text` as a file name without extension.

    The name is in NFC, has letters, digits and `_.-` only, at most 180 bytes, and is never empty.
    """
    name = _UNSAFE.sub("_", unicodedata.normalize("NFC", text)).lstrip(".-")
    if _RESERVED.fullmatch(name):
        name = "_" + name
    if len(name) > MAX_BYTES // 4:
        name = name.encode()[:MAX_BYTES].decode(errors="ignore")
    name = name.rstrip("._-")
    return ("_" + name if _RESERVED.fullmatch(name) else name) or "_"


def folded(name: str) -> str:
    """Return the form that is equal for names that a file system may take for the same one.

    Such file systems ignore case and Unicode composition.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
