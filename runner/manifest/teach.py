"""Turn errors of pydantic into diagnostics with a hint, and describe values and names in messages."""

from __future__ import annotations

import re
import unicodedata
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from runner.manifest.schema import Document, LimitsPart, NotifyPart, OutputPart, RetryPart
from runner.manifest.values import dotted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic_core import ErrorDetails

    from runner.manifest.report import Report
    from runner.manifest.values import Places

_GAP = re.compile(r"[\s-]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "bool_type": "`true` or `false`",
    "model_type": "a mapping (`key: value`)",
}
_KEYS: dict[str, Any] = {
    "": Document.model_fields,
    "output": OutputPart.model_fields,
    "limits": LimitsPart.model_fields,
    "retry": RetryPart.model_fields,
    "notify": NotifyPart.model_fields,
}


def translate(errors: list[ErrorDetails], source_map: Places, diagnostics: Report) -> None:
    """Add a diagnostic for every error of pydantic."""
    for error in errors:
        path = error["loc"]
        if error["type"] == "extra_forbidden":
            diagnostics.add(source_map.key_place(*path), dotted(path), *_unknown(path))
        else:
            diagnostics.add(source_map.place(*path), dotted(path), *_wrong(error))


def described(value: Any) -> str:
    """Return a value as messages show it."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"`{str(value).lower()}`"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text `{value[:40]}{'…' * (len(value) > 40)}`"  # noqa: PLR2004 - enough to recognise the text
        case dict():
            return "a mapping"
        case _:
            return "a list"


def plain(name: str) -> str:
    """Return a name in the form of parameters: lower case, no full-width or invisible characters, no spaces."""
    visible = "".join(char for char in unicodedata.normalize("NFKC", name) if unicodedata.category(char) != "Cf")
    return _GAP.sub("_", _HUMP.sub("_", visible.strip())).casefold()


def closest(name: str, known: Iterable[str], label: str = "it may be") -> str:
    """Return a hint with the nearest known name, or with the first twenty if none is near."""
    names = sorted(known)
    by_form = {plain(each): each for each in names}
    if near := get_close_matches(plain(name), by_form, n=1, cutoff=0.6):
        return f"did you mean `{by_form[near[0]]}`?"
    return f"{label} " + (", ".join(f"`{each}`" for each in names[:20]) or "none")


def _unknown(path: tuple[str | int, ...]) -> tuple[str, str]:
    known = _KEYS[dotted(path[:-1])]
    elsewhere = [part for part, keys in _KEYS.items() if part and path[-1] in keys]
    if elsewhere and len(path) == 1:
        return "no such key here", f"it belongs under `{elsewhere[0]}:`"
    hint = closest(str(path[-1]), known)
    if len(path) == 1 and not hint.startswith("did you mean"):
        hint = f"a parameter of the model belongs under `params:`; else {hint}"
    return "no such key", hint


def _wrong(error: ErrorDetails) -> tuple[str, str]:
    found = described(error["input"])
    match error["type"]:
        case "explained":
            return f"{error['msg']}; found {found}", error["ctx"]["hint"]
        case "greater_than_equal":
            return f"at least {error['ctx']['ge']}, found {found}", "raise it"
        case "less_than_equal":
            return f"at most {error['ctx']['le']:,}, found {found}", "lower it"
        case "string_too_short":
            return "an empty text", "write something, or remove the key"
        case kind if kind in _EXPECTED:
            return f"expected {_EXPECTED[kind]}, found {found}", _cure(kind, error["input"])
        case _:
            return str(error["msg"]), "correct it, or remove the key"


def _cure(kind: str, value: Any) -> str:
    if value is None:
        return "write a value, or remove the key"
    if kind == "string_type" and not isinstance(value, dict | list):
        return f'put it in quotes: "{str(value).lower() if isinstance(value, bool) else value}"'
    if kind == "bool_type" and str(value).lower() in {"yes", "no", "on", "off"}:
        return f"write `{'true' if str(value).lower() in {'yes', 'on'} else 'false'}`"
    return "correct it, or remove the key"
