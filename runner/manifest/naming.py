"""Name the output files of tasks, and find two tasks with the same name."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from runner.manifest.names import folded, slug
from runner.manifest.recipe import CHOICES
from runner.manifest.values import said

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.manifest.recipe import Recipe
    from runner.manifest.templates import Template

#: a name that begins with the index, and goes on with no digit, is unique; `{{-` would strip blanks
_BY_INDEX = re.compile(r"\{\{\s*index\s*\}\}(?:$|[^0-9{\s])")
#: largest length of a prompt that stands in a name as it is, in characters
_PROMPT = 40
#: largest length of the description in a default name, in characters, and the largest number of values in it;
#: in Chinese that is just within the bytes of a name
_ROOM = 54
_TOLD = 6


class Namer:
    """Namer of outputs. `text` is the source of the template, or None for the default: index and varying values."""

    def __init__(
        self,
        text: str | None,
        template: Template | None,
        varying: tuple[str, ...] = (),
        variables: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        self._constant = text
        self._template = template
        self._varying = varying
        self._uses = variables or {}
        self._telling: dict[tuple[Recipe, str], tuple[list[str], list[str]]] = {}
        self._places: dict[bytes, tuple[int, int]] | None = None
        if text is not None and not _BY_INDEX.match(text):
            self._places = {}

    def name(
        self, index: int, key: str, template: Recipe, variables: Mapping[str, Any], params: Mapping[str, Any]
    ) -> str:
        """Return the file name of a task without extension.

        Raise TemplateError if the template cannot be rendered.
        """
        if self._template is not None:
            return slug(self._template.render({**variables, "index": f"{index:04d}", "key": key[:8]}))
        if self._constant is not None:
            return slug(self._constant)
        return slug(f"{index:04d}-{self._told(template, variables, params)}")

    def twin(self, name: str, index: int, line: int) -> tuple[int, int] | None:
        """Return (index, line) of an earlier task whose name a file system may take for the same, else None."""
        if self._places is None:
            return None
        digest = blake2b(folded(name).encode(), digest_size=16).digest()
        earlier = self._places.setdefault(digest, (index, line))
        return earlier if earlier[0] != index else None

    def _told(self, template: Recipe, variables: Mapping[str, Any], params: Mapping[str, Any]) -> str:
        """Return a short prompt, or the varying values of a long one, then the other varying values."""
        source, prompt = _prompt(params)
        varying = self._telling.get((template, source))
        if varying is None:
            varying = self._telling[template, source] = self._sorted(template, source)
        inside, beside = varying
        short = len(prompt) <= _PROMPT or not inside
        pieces = [prompt] if short else [said(variables.get(name)) for name in inside]
        if not beside and short:
            return prompt if len(prompt) <= _PROMPT else _cut(prompt, _ROOM)
        return _fitted([*pieces, *(said(variables.get(name)) for name in beside)])

    def _sorted(self, template: Recipe, source: str) -> tuple[list[str], list[str]]:
        """Return the varying variables in the prompt, and the others that make a difference to the model."""
        within = self._uses.get(source, frozenset())
        others = {name for param, names in self._uses.items() if param != source for name in names}
        effective = {name for name in self._varying if template.sets[name] or name in CHOICES or name in others}
        beside = [name for name in self._varying if name in effective and name not in within and name != source]
        return [name for name in self._varying if name in within], beside


def _prompt(params: Mapping[str, Any]) -> tuple[str, str]:
    """Return name and text of the prompt, else of the first parameter with several words."""
    prompt = params.get("prompt")
    if isinstance(prompt, str):
        return "prompt", prompt
    return next(((name, value) for name, value in params.items() if isinstance(value, str) and " " in value), ("", ""))


def _fitted(pieces: list[str]) -> str:
    """Return the pieces joined by `-`, the longest ones shortened until all fit."""
    kept = [piece for piece in pieces if piece][:_TOLD]
    joined = "-".join(kept)
    if len(joined) <= _ROOM:
        return joined
    longest = _share(sorted(map(len, kept)), _ROOM - len(kept))
    return "-".join([_cut(piece, longest) for piece in kept])


def _share(lengths: list[int], available: int) -> int:
    """Return the largest length of a piece so that all fit into `available` characters.

    Short pieces leave their rest to the long ones. `lengths` are sorted.
    """
    share = available
    for left in range(len(lengths), 0, -1):
        share = available // left
        available -= min(share, lengths[-left])
    return share


def _cut(text: str, limit: int) -> str:
    """Return both ends of a text, since texts differ at either end."""
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail - 2]}..{text[-tail:]}"
