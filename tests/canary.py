"""Canary keys: `pytest --canary` gives them to every run against a sandbox, and searches the files left behind."""

from __future__ import annotations

import base64
import os
import secrets
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

#: how the processes of one session know of it
NAME = "RUNNER_TEST_CANARY"
_SECRET = ("_SECRET_KEY", "_API_KEY")
#: bytes of a file that are searched
_LARGEST = 64 << 20


def plant() -> None:
    """Use canaries from now on, in this process and its children."""
    os.environ.setdefault(NAME, f"canary+{secrets.token_hex(8)}")


def planted(env: Mapping[str, str]) -> dict[str, str]:
    """Return a sandbox's credentials, with canaries instead of its secrets if requested."""
    canary = os.environ.get(NAME)
    return {name: f"{canary}-{name}" if canary and name.endswith(_SECRET) else value for name, value in env.items()}


def spellings(secret: str) -> set[bytes]:
    """Return the spellings of a canary in a file. Of Base64, only the part that does not depend on its context."""
    raw = secret.encode()
    turned = {base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)}
    return {raw, raw.hex().encode(), quote(secret, safe="").encode(), *turned}


def hits(root: Path) -> Iterator[Path]:
    """Return every file that holds a canary."""
    sought = spellings(os.environ[NAME])
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= _LARGEST:
            data = path.read_bytes()
            if any(each in data for each in sought):
                yield path
