"""Schema of the journal's lines: the fields of each kind of line and their types.

A checksum proves that a line is complete, but not that this program wrote it. A line of an unknown kind is a newer
version's and is skipped. A line of a known kind with other fields is refused.
"""

from __future__ import annotations

from typing import Any

_NUMBER_TYPES = (int, float)
_INTENT_FIELDS: dict[str, tuple[type, ...]] = {
    "key": (str,),
    "generation": (int,),
    "provider": (str,),
    "operation": (str,),
    "model": (str,),
    "fingerprint": (str,),
    "slots": (int,),
    "boot": (str,),
    "seconds": _NUMBER_TYPES,
    "at": (*_NUMBER_TYPES, type(None)),
    "name": (str,),
    "request": (str,),
}
_FIELDS_BY_KIND: dict[str, dict[str, tuple[type, ...]]] = {
    "epoch": {"uuid": (str,), "epoch": (int,)},
    "intent": {"ref": (str,), **_INTENT_FIELDS},
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
_OPTIONAL_FIELDS: dict[str, tuple[type, ...]] = {
    "cost": (*_NUMBER_TYPES, type(None)),
    "spent": _NUMBER_TYPES,
    "pictures": (str,),
    "ref": (str,),
    "next": (str,),
}
_FILE_FIELDS: dict[str, tuple[type, ...]] = {"number": (int,), "file": (str,), "bytes": (int,), "sha256": (str,)}
#: bound of the integers that a database can hold
_INTEGER_LIMIT = 2**63


def invalid_field(line: dict[str, Any]) -> str:
    """Return the name of a field that is missing or has a wrong type, or an empty string if the line is valid."""
    kind = line.get("t")
    if not isinstance(kind, str):
        return "t"
    shape = _FIELDS_BY_KIND.get(kind, {})
    if "key" in line:
        shape = {"ref": (str,), **_INTENT_FIELDS, **shape}
    optional = {name: kinds for name, kinds in _OPTIONAL_FIELDS.items() if name in line}
    return _first_mismatch(line, optional | shape) or next(
        (each for each in map(_invalid_file, line.get("files") or ()) if each), ""
    )


def _invalid_file(file: Any) -> str:
    return "files" if not isinstance(file, dict) or _first_mismatch(file, _FILE_FIELDS) else ""


def _first_mismatch(values: dict[str, Any], shape: dict[str, tuple[type, ...]]) -> str:
    return next((name for name, kinds in shape.items() if not _has_type(values.get(name, _FIELDS_BY_KIND), kinds)), "")


def _has_type(value: Any, kinds: tuple[type, ...]) -> bool:
    return type(value) in kinds and (type(value) is not int or -_INTEGER_LIMIT <= value < _INTEGER_LIMIT)
