"""Name the output files of tasks, and find two tasks with the same name.

A name is one safe path component, whatever a template or a prompt puts into it. Where outputs are spread over several
directories, the first digits of the task's key stand before it: `3f/0001-boat`.
"""

from __future__ import annotations

import re
import unicodedata
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from runner.manifest.model import MODEL_KEYS
from runner.manifest.positions import value_text
from runner.manifest.templates import TemplateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.manifest.params import RequestTemplate
    from runner.manifest.templates import Template

#: how many digits of a task's key name its directory, by the number of directories; one digit is not used, so that no
#: directory that a user would make by hand looks like one of these
SHARD_DIGITS = {256: 2, 4096: 3}
#: files of a job above which one directory is too slow for many tools
MAX_FILES = 10_000
#: largest length of a name in bytes of UTF-8; leaves room for `-2`, an extension and `.part` within 255
MAX_BYTES = 180
#: largest length of a prompt that stands in a name as it is, in characters
_MAX_PROMPT = 40
#: largest length of the description in a default name, in characters, and the largest number of values in it;
#: in Chinese that is just within the bytes of a name
_MAX_DESCRIPTION = 54
_MAX_PIECES = 6
#: a name that begins with the index, and goes on with no digit, is unique; `{{-` would strip whitespace
_BY_INDEX = re.compile(r"\{\{\s*index\s*\}\}(?:$|[^0-9{\s])")
_UNSAFE = re.compile(r"(?:[^\w.-]|_)+")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)[0-9¹²³])(?:\..*)?", re.IGNORECASE | re.DOTALL)


class OutputNamer:
    """Namer of outputs. `text` is the source of the template, or None for the default: index and varying values.

    `shards` is the number of directories that they are spread over.
    """

    def __init__(
        self,
        text: str | None,
        template: Template | None,
        varying: tuple[str, ...] = (),
        variables: Mapping[str, frozenset[str]] | None = None,
        *,
        shards: int | None = None,
    ) -> None:
        self._constant = text
        self._shard_digits = SHARD_DIGITS.get(shards or 0, 0)
        self._template = template
        self._varying = varying
        self._variables = variables or {}
        self._varying_by_prompt: dict[tuple[RequestTemplate, str], tuple[list[str], list[str]]] = {}
        self._seen: dict[bytes, tuple[int, int]] | None = None
        if text is not None and not _BY_INDEX.match(text):
            self._seen = {}

    @property
    def is_always_right(self) -> bool:
        """Return True if no name can fail or be equal to another: it begins with the index, and has no template."""
        return self._template is None and self._constant is None

    def name(
        self, index: int, key: str, template: RequestTemplate, variables: Mapping[str, Any], params: Mapping[str, Any]
    ) -> str:
        """Return the file name of a task without extension, after its directory if there are several.

        Raise TemplateError if the template cannot be rendered.
        """
        name = self._component(index, key, template, variables, params)
        return f"{key[: self._shard_digits]}/{name}" if self._shard_digits else name

    def name_from_template(
        self, index: int, key: str, template: RequestTemplate, variables: Mapping[str, Any], params: Mapping[str, Any]
    ) -> str:
        """Return the name that the manifest's template gives, or an empty text if there is none, or it fails."""
        try:
            return self.name(index, key, template, variables, params) if self._template is not None else ""
        except TemplateError:
            return ""

    def _component(
        self, index: int, key: str, template: RequestTemplate, variables: Mapping[str, Any], params: Mapping[str, Any]
    ) -> str:
        if self._template is not None:
            return slug(self._template.render({**variables, "index": f"{index:04d}", "key": key[:8]}))
        if self._constant is not None:
            return slug(self._constant)
        return slug(f"{index:04d}-{self._description(template, variables, params)}")

    def find_same_name(self, name: str, index: int, line: int) -> tuple[int, int] | None:
        """Return (index, line) of an earlier task whose name a file system may take for the same, else None."""
        if self._seen is None:
            return None
        digest = blake2b(fold_name(name).encode(), digest_size=16).digest()
        earlier = self._seen.setdefault(digest, (index, line))
        return earlier if earlier[0] != index else None

    def _description(self, template: RequestTemplate, variables: Mapping[str, Any], params: Mapping[str, Any]) -> str:
        """Return a short prompt, or the varying values of a long one, then the other varying values."""
        source, prompt = _find_prompt(params)
        varying = self._varying_by_prompt.get((template, source))
        if varying is None:
            varying = self._varying_by_prompt[template, source] = self._split_varying(template, source)
        inside, beside = varying
        short = len(prompt) <= _MAX_PROMPT or not inside
        pieces = [prompt] if short else [value_text(variables.get(name)) for name in inside]
        if not beside and short:
            return prompt if len(prompt) <= _MAX_PROMPT else _shorten(prompt, _MAX_DESCRIPTION)
        return _join_shortened([*pieces, *(value_text(variables.get(name)) for name in beside)])

    def _split_varying(self, template: RequestTemplate, source: str) -> tuple[list[str], list[str]]:
        """Return the varying variables in the prompt, and the others that make a difference to the model."""
        within = self._variables.get(source, frozenset())
        others = {name for param, names in self._variables.items() if param != source for name in names}
        effective = {
            name for name in self._varying if template.matrix_params[name] or name in MODEL_KEYS or name in others
        }
        beside = [name for name in self._varying if name in effective and name not in within and name != source]
        return [name for name in self._varying if name in within], beside


def _find_prompt(params: Mapping[str, Any]) -> tuple[str, str]:
    """Return name and text of the prompt, else of the first parameter with several words."""
    prompt = params.get("prompt")
    if isinstance(prompt, str):
        return "prompt", prompt
    return next(((name, value) for name, value in params.items() if isinstance(value, str) and " " in value), ("", ""))


def _join_shortened(pieces: list[str]) -> str:
    """Return the pieces joined by `-`, the longest ones shortened until all fit."""
    kept = [piece for piece in pieces if piece][:_MAX_PIECES]
    joined = "-".join(kept)
    if len(joined) <= _MAX_DESCRIPTION:
        return joined
    longest = _piece_length(sorted(map(len, kept)), _MAX_DESCRIPTION - len(kept))
    return "-".join([_shorten(piece, longest) for piece in kept])


def _piece_length(lengths: list[int], available: int) -> int:
    """Return the largest length of a piece so that all fit into `available` characters.

    Short pieces leave their rest to the long ones. `lengths` are sorted.
    """
    share = available
    for left in range(len(lengths), 0, -1):
        share = available // left
        available -= min(share, lengths[-left])
    return share


def _shorten(text: str, limit: int) -> str:
    """Return both ends of a text, since texts differ at either end."""
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail - 2]}..{text[-tail:]}"


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


def fold_name(name: str) -> str:
    """Return the form that is equal for names that a file system may take for the same one.

    Such file systems ignore case and Unicode composition.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
