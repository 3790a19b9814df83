"""Render the mistakes of a provider spec: the field, what was expected, and the closest known name."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

#: characters of a wrong value that are shown
_SHOWN = 60


def told(error: ValidationError, known: Iterable[str]) -> Iterator[str]:
    """Yield one line for each mistake. `known` are the names of all fields of a spec."""
    names = sorted(known)
    for each in error.errors():
        path, message = _place(each["loc"]), _said(each, names)
        yield f"{path}: {message}" if path else message


def _place(path: tuple[int | str, ...]) -> str:
    """Return the path of a field in the form `errors[2].means`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _said(each: ErrorDetails, known: list[str]) -> str:
    match each["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            near = get_close_matches(str(each["loc"][-1]), known, n=1)
            return f"no such field{f'; did you mean `{near[0]}`?' if near else ''}"
        case "value_error":
            return " ".join(str(each.get("ctx", {}).get("error", each["msg"])).split())
        case _:
            expected = each["msg"].replace("Input should be", "expected").replace("valid dictionary", "mapping")
            return f"{expected}; found {_found(each['input'])}"


def _found(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
