"""What the files of a task are called, and whether two tasks are called the same."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from runner.manifest.names import folded, slug

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.manifest.templates import Template

#: a name that begins with the index and goes on with no digit is nobody else's
_BY_INDEX = re.compile(r"\{\{\s*index\s*\}\}(?:$|[^0-9{])")
_PROMPT = 40


class Namer:
    """Makes names; `text` is the template's source, None for the default: index and prompt."""

    def __init__(self, text: str | None, template: Template | None) -> None:
        self._constant = text
        self._template = template
        self._places: dict[bytes, tuple[int, int]] | None = None
        if text is not None and not _BY_INDEX.match(text):
            self._places = {}

    def name(self, index: int, key: str, variables: Mapping[str, Any], params: Mapping[str, Any]) -> str:
        if self._template is not None:
            return slug(self._template.render({**variables, "index": f"{index:04d}", "key": key[:8]}))
        if self._constant is not None:
            return slug(self._constant)
        return slug(f"{index:04d}-{_prompt(params)[:_PROMPT]}")

    def twin(self, name: str, index: int, line: int) -> tuple[int, int] | None:
        """(index, line) of an earlier task of this name, as any file system would see it."""
        if self._places is None:
            return None
        digest = blake2b(folded(name).encode(), digest_size=16).digest()
        earlier = self._places.setdefault(digest, (index, line))
        return earlier if earlier[0] != index else None


def _prompt(params: Mapping[str, Any]) -> str:
    prompt = params.get("prompt")
    if isinstance(prompt, str):
        return prompt
    return next((value for value in params.values() if isinstance(value, str) and " " in value), "")
