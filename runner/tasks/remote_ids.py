"""Ids that providers give to tasks: opaque texts, kept and asked for exactly as they came.

An id may hold blanks, slashes, signs, letters of any language and control characters, and two ids may differ in case
alone. Where a person sees one, it stands in a form that a terminal shows safely and that can be typed back.
"""

from __future__ import annotations

import json
import re
from typing import Any

#: bytes of the longest id in UTF-8; percent-encoded it still fits into a URL
MAX_BYTES = 1024
#: digits of the longest id that is a number
_MAX_DIGITS = 128
#: between why a submit has no clear answer and the id that the answer names all the same
NAMES_TASK = "and yet it names a task: "
#: stands before what was given for an id in an answer that accepted a task
UNREADABLE_ID = "accepted with an id that is none: "
#: before the beginning of an answer that was cut
CUT_ANSWER = "body so far: "
#: an id in such a beginning, in the places where providers put it, the usual one first
_CUT_IDS = tuple(
    re.compile(rf'"{name}"\s*:\s*(?:("(?:[^"\\]|\\.)+")|([0-9]+)(?=\s*[,}}]))') for name in ("task_id", "data", "id")
)
_SEPARATORS = re.compile(r"[/\\]")


def parse_remote_id(value: Any) -> str | None:
    """Return an id of text or a whole number as text, or None if it is no id that can be stored and asked for.

    Those are other kinds of values, blank text, text of more than 1024 bytes or with a NUL or a lone surrogate, and
    text in which dots alone stand for a directory, since some hosts would follow them out of the path of a query.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = value if isinstance(value, str) else str(value) if abs(value) < 10**_MAX_DIGITS else ""
    if not text.strip() or "\0" in text or any(part in {".", ".."} for part in _SEPARATORS.split(text)):
        return None
    try:
        return text if len(text.encode()) <= MAX_BYTES else None
    except UnicodeEncodeError:
        return None


def show_remote_id(remote_id: str) -> str:
    """Return an id as people see and type it: as it is, or as a JSON string if a terminal would not show all of it.

    It would not show control and format characters, unusual blanks, and blanks at an end.
    """
    plain = remote_id.isprintable() and remote_id == remote_id.strip() and not remote_id.startswith('"')
    return remote_id if plain else json.dumps(remote_id)


def read_remote_id(text: str) -> str | None:
    """Return the id that a person typed, in the form of `show_remote_id`, or None if it is none."""
    text = text.strip()
    if text.startswith('"'):
        try:
            return parse_remote_id(json.loads(text))
        except ValueError:
            return parse_remote_id(text)
    return parse_remote_id(text)


def says_accepted(evidence: str) -> bool:
    """Return whether an answer said, by what is on record of it, that a task was made: with an id, or what is none."""
    return UNREADABLE_ID in evidence or named_id(evidence) is not None


def named_id(evidence: str) -> str | None:
    """Return the id that an answer named which was not clearly an acceptance, by what is on record of it; else None."""
    _, mark, rest = evidence.rpartition(NAMES_TASK)
    if mark:
        return read_remote_id(rest)
    _, mark, body = evidence.partition(CUT_ANSWER)
    for pattern in _CUT_IDS if mark else ():
        if (found := pattern.search(body)) is not None:
            return read_remote_id(found[1] or found[2])
    return None
