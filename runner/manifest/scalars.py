"""Resolve plain scalars by the core schema of YAML 1.2: `9:16`, `no`, `on`, `012`, `1_000` and dates are text."""

from __future__ import annotations

import math
import re

Scalar = str | int | float | bool | None

#: whole numbers that orjson, and so a task's key, can represent
INTEGERS = range(-(2**63), 2**64)
_CONSTANTS: dict[str, Scalar] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_FIRST = frozenset("-+.0123456789")
#: first characters of plain scalars that may be a merge key or something else than text; empty for the empty scalar
TELLING = _FIRST | {constant[:1] for constant in _CONSTANTS} | {"<"}
_BASES = {"0x": 16, "0o": 8}
#: largest number of digits to convert; int() rejects 4,300 of them
_DIGITS = 400


def resolve(text: str) -> Scalar:
    """Return the value of a plain scalar. Raise OverflowError for whole numbers beyond 64 bits."""
    if text[:1] in _FIRST and text:
        return _number(text)
    return _CONSTANTS.get(text, text)


def _number(text: str) -> Scalar:
    if len(text) > _DIGITS and text.strip("+-").isdigit():
        raise OverflowError
    if _INTEGER.fullmatch(text):
        base = _BASES.get(text[:2])
        number = int(text[2:], base) if base else int(text)
        if number not in INTEGERS:
            raise OverflowError
        return number
    if _FLOAT.fullmatch(text) and math.isfinite(value := float(text)):
        return value
    return text
