"""Evaluate the JMESPath expressions of specs: compiled once, with two more functions, without raising on any input.

Two traps of the language matter most here: `0` is true, and `a > 1` raises if `a` is text.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import jmespath
import orjson
from jmespath import functions

#: characters of a text that `match` searches
_MAX_SUBJECT = 10_000


class _Functions(functions.Functions):  # type: ignore[misc]  # jmespath has no types
    @functions.signature({"types": []})  # type: ignore[untyped-decorator]
    def _func_from_json(self, text: Any) -> Any:
        """Return the JSON value in `text`, or null if it is not JSON text."""
        try:
            return orjson.loads(text) if isinstance(text, str) else None
        except orjson.JSONDecodeError:
            return None

    @functions.signature({"types": []}, {"types": ["string"]})  # type: ignore[untyped-decorator]
    def _func_match(self, text: Any, pattern: str) -> Any:
        """Return the first group, or the whole match, or null if `text` is no text or does not match."""
        found = re.search(pattern, text[:_MAX_SUBJECT]) if isinstance(text, str) else None
        return None if found is None else found.group(found.re.groups and 1)


_OPTIONS = jmespath.Options(custom_functions=_Functions())


class Expression:
    """Compiled expression. `search` returns None if the value has another shape than expected."""

    __slots__ = ("_compiled", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._compiled = jmespath.compile(text)

    def search(self, value: Any) -> Any:
        """Return what the expression finds in `value`, or None if it does not apply."""
        try:
            return self._compiled.search(value, options=_OPTIONS)
        except Exception:  # noqa: BLE001 - jmespath raises TypeError, AttributeError and its own on odd shapes
            return None

    def is_true(self, value: Any) -> bool:
        """Return True only if the result is exactly true. Other truthy values count as false."""
        return self.search(value) is True

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


@lru_cache(maxsize=1024)
def compile_expression(text: str) -> Expression:
    """Return the compiled expression from a cache. Raise jmespath.exceptions.ParseError."""
    return Expression(text)
