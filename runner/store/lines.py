"""Schema of the journal's lines: the fields of each kind of line and their types.

A checksum proves that a line is complete, but not that this program wrote it. A line of an unknown kind is a newer
version's and is skipped. A line of a known kind with other fields is refused.
"""

from __future__ import annotations

from typing import Any

_NUMBER = (int, float)
_INTENT: dict[str, tuple[type, ...]] = {
    "key": (str,),
    "generation": (int,),
    "provider": (str,),
    "operation": (str,),
    "model": (str,),
    "fingerprint": (str,),
    "slots": (int,),
    "boot": (str,),
    "seconds": _NUMBER,
    "at": (*_NUMBER, type(None)),
    "name": (str,),
    "request": (str,),
}
_SHAPES: dict[str, dict[str, tuple[type, ...]]] = {
    "epoch": {"uuid": (str,), "epoch": (int,)},
    "intent": {"ref": (str,), **_INTENT},
    "id": {"ref": (str,), "remote_id": (str,), "adopted": (bool,)},
    "settle": {
        "ref": (str,),
        "state": (str,),
        "evidence": (str,),
        "reason": (str, type(None)),
        "message": (str, type(None)),
    },
    "saved": {"ref": (str,), "files": (list,), "reason": (str, type(None))},
    "retry": {"ref": (str,), "generation": (int,), "next": (str,)},
}
#: fields that only newer lines have
_OPTIONAL: dict[str, tuple[type, ...]] = {
    "cost": (*_NUMBER, type(None)),
    "spent": _NUMBER,
    "pictures": (str,),
    "ref": (str,),
    "next": (str,),
}
_FILE: dict[str, tuple[type, ...]] = {"number": (int,), "file": (str,), "bytes": (int,), "sha256": (str,)}
#: bound of the integers that a database can hold
_BITS = 2**63


def flaw(line: dict[str, Any]) -> str:
    """Return the name of a field that is missing or has a wrong type, or an empty string if the line is valid."""
    kind = line.get("t")
    if not isinstance(kind, str):
        return "t"
    shape = _SHAPES.get(kind, {})
    if "key" in line:
        shape = {"ref": (str,), **_INTENT, **shape}
    optional = {name: kinds for name, kinds in _OPTIONAL.items() if name in line}
    return _unfit(line, optional | shape) or next((each for each in map(_file, line.get("files") or ()) if each), "")


def _file(file: Any) -> str:
    return "files" if not isinstance(file, dict) or _unfit(file, _FILE) else ""


def _unfit(values: dict[str, Any], shape: dict[str, tuple[type, ...]]) -> str:
    return next((name for name, kinds in shape.items() if not _fits(values.get(name, _SHAPES), kinds)), "")


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    return type(value) in kinds and (type(value) is not int or -_BITS <= value < _BITS)
