"""Guess the encoding of a spreadsheet file that is not UTF-8, and name the command that converts it."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: bytes that are read to recognise an encoding
_ENOUGH = 64 * 1024
_HAN = re.compile(r"[\u4e00-\u9fff]")


def reads_as(path: Path) -> str:
    """Return the encoding that the beginning of a file can be decoded as.

    The name is empty for UTF-8, for an unknown encoding and for an unreadable file.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_ENOUGH)
    except OSError:
        return ""
    return _encoding(head.rpartition(b"\n")[0] if len(head) == _ENOUGH else head)


def cure(path: str, encoding: str) -> str:
    """Return the hint that names the command to convert a file to UTF-8."""
    stem, dot, suffix = path.rpartition(".")
    fresh = f"{stem}-utf8.{suffix}" if dot else f"{path}-utf8"
    return f"save it as “CSV UTF-8”, or: iconv -f {encoding} -t UTF-8 {shlex.quote(path)} > {shlex.quote(fresh)}"


def _encoding(head: bytes) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    try:
        head.decode()
    except UnicodeDecodeError:
        pass
    else:
        return ""
    try:
        return "GB18030" if _HAN.search(head.decode("gb18030")) else ""
    except UnicodeDecodeError:
        return ""
