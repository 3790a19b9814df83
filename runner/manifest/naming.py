"""What the files of a task are called, and whether two tasks are called the same."""

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

#: a name that begins with the index and goes on with no digit is nobody else's; `{{-` would take blanks away
_BY_INDEX = re.compile(r"\{\{\s*index\s*\}\}(?:$|[^0-9{\s])")
#: characters of a prompt that stands in a name as it is
_PROMPT = 40
#: characters of all that a default name tells, and how many things; in Chinese that is just within a name's bytes
_ROOM = 54
_TOLD = 6


class Namer:
    """Makes names; `text` is the template's source, None for the default: the index and what differs."""

    def __init__(
        self,
        text: str | None,
        template: Template | None,
        varying: tuple[str, ...] = (),
        uses: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        self._constant = text
        self._template = template
        self._varying = varying
        self._uses = uses or {}
        self._telling: dict[tuple[Recipe, str], tuple[list[str], list[str]]] = {}
        self._places: dict[bytes, tuple[int, int]] | None = None
        if text is not None and not _BY_INDEX.match(text):
            self._places = {}

    def name(
        self, index: int, key: str, recipe: Recipe, variables: Mapping[str, Any], params: Mapping[str, Any]
    ) -> str:
        """A file name without extension."""
        if self._template is not None:
            return slug(self._template.render({**variables, "index": f"{index:04d}", "key": key[:8]}))
        if self._constant is not None:
            return slug(self._constant)
        return slug(f"{index:04d}-{self._told(recipe, variables, params)}")

    def twin(self, name: str, index: int, line: int) -> tuple[int, int] | None:
        """(index, line) of an earlier task of this name, as any file system would see it."""
        if self._places is None:
            return None
        digest = blake2b(folded(name).encode(), digest_size=16).digest()
        earlier = self._places.setdefault(digest, (index, line))
        return earlier if earlier[0] != index else None

    def _told(self, recipe: Recipe, variables: Mapping[str, Any], params: Mapping[str, Any]) -> str:
        """A short prompt, or what varies in a long one; then what varies beside it."""
        source, prompt = _prompt(params)
        telling = self._telling.get((recipe, source))
        if telling is None:
            telling = self._telling[recipe, source] = self._sorted(recipe, source)
        inside, beside = telling
        short = len(prompt) <= _PROMPT or not inside
        pieces = [prompt] if short else [said(variables.get(name)) for name in inside]
        if not beside and short:
            return prompt if len(prompt) <= _PROMPT else _cut(prompt, _ROOM)
        return _fitted([*pieces, *(said(variables.get(name)) for name in beside)])

    def _sorted(self, recipe: Recipe, source: str) -> tuple[list[str], list[str]]:
        """Of what varies, what the prompt is made from, and what else makes a difference to a model."""
        within = self._uses.get(source, frozenset())
        others = {name for param, names in self._uses.items() if param != source for name in names}
        heard = {name for name in self._varying if recipe.sets[name] or name in CHOICES or name in others}
        beside = [name for name in self._varying if name in heard and name not in within and name != source]
        return [name for name in self._varying if name in within], beside


def _prompt(params: Mapping[str, Any]) -> tuple[str, str]:
    """The prompt and the name of its parameter; else the first text of several words."""
    prompt = params.get("prompt")
    if isinstance(prompt, str):
        return "prompt", prompt
    return next(((name, value) for name, value in params.items() if isinstance(value, str) and " " in value), ("", ""))


def _fitted(pieces: list[str]) -> str:
    """The pieces side by side, the longest cut until there is room for all."""
    kept = [piece for piece in pieces if piece][:_TOLD]
    whole = "-".join(kept)
    if len(whole) <= _ROOM:
        return whole
    longest = _share(sorted(map(len, kept)), _ROOM - len(kept))
    return "-".join([_cut(piece, longest) for piece in kept])


def _share(lengths: list[int], room: int) -> int:
    """How long each may be at the most; what the short ones leave goes to the long ones."""
    share = room
    for left in range(len(lengths), 0, -1):
        share = room // left
        room -= min(share, lengths[-left])
    return share


def _cut(text: str, most: int) -> str:
    """Both ends of a text: what differs stands at either."""
    if len(text) <= most:
        return text
    tail = most // 3
    return f"{text[: most - tail - 2]}..{text[-tail:]}"
