"""What is wrong with a provider spec: each mistake with its field, what was expected, and what comes closest."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

#: characters of what was found that are shown
_SHOWN = 60


def told(error: ValidationError, known: Iterable[str]) -> Iterator[str]:
    """A line for each mistake; `known` are the names that a spec's fields have."""
    names = sorted(known)
    for each in error.errors():
        place = _place(each["loc"])
        yield f"{place}: {_said(each, names)}" if place else _said(each, names)


def _place(path: tuple[int | str, ...]) -> str:
    """Like `errors[2].means`."""
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
            return f"{_expected(each)}; found {_found(each['input'])}"


def _expected(each: ErrorDetails) -> str:
    return each["msg"].replace("Input should be", "expected").replace("valid dictionary", "mapping")


def _found(value: Any) -> str:
    words = " ".join(repr(value).split())
    return words if len(words) <= _SHOWN else f"{words[: _SHOWN - 1]}…"
