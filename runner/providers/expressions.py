"""JMESPath as the specs use it: compiled once, with two functions of our own, never raising on an answer's shape.

Traps of the language are listed in contracts/dialects.md section 6; the worst: `0` is true, `a > 1` raises on text.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import jmespath
import orjson
from jmespath import functions

#: longest text a pattern is tried on, characters
_LONGEST = 10_000


class _Functions(functions.Functions):  # type: ignore[misc]  # jmespath has no types
    @functions.signature({"types": []})  # type: ignore[untyped-decorator]
    def _func_from_json(self, text: Any) -> Any:
        """Parsed JSON, or null when `text` is no JSON text."""
        try:
            return orjson.loads(text) if isinstance(text, str) else None
        except orjson.JSONDecodeError:
            return None

    @functions.signature({"types": []}, {"types": ["string"]})  # type: ignore[untyped-decorator]
    def _func_match(self, text: Any, pattern: str) -> Any:
        """The first group, or the whole match, or null when `text` is no text or does not match."""
        found = re.search(pattern, text[:_LONGEST]) if isinstance(text, str) else None
        return None if found is None else found.group(found.re.groups and 1)


_OPTIONS = jmespath.Options(custom_functions=_Functions())


class Expression:
    """One compiled expression; `search` answers None where the shape does not fit."""

    __slots__ = ("_compiled", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._compiled = jmespath.compile(text)

    def search(self, value: Any) -> Any:
        """What the expression finds in `value`; None where it does not apply."""
        try:
            return self._compiled.search(value, options=_OPTIONS)
        except Exception:  # noqa: BLE001 - jmespath raises TypeError, AttributeError and its own on odd shapes
            return None

    def holds(self, value: Any) -> bool:
        """Whether it gives exactly true: anything else, truthy or not, is no."""
        return self.search(value) is True

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


@lru_cache(maxsize=1024)
def compiled(text: str) -> Expression:
    """The expression, compiled once; raises jmespath.exceptions.ParseError."""
    return Expression(text)
