"""Explain syntax errors of YAML in plain words, each with a hint."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

TAB: Final = "'\\t'"
#: words of the parser's message, and our message and hint for them
_PLAIN_WORDS: Final = (
    (TAB, "a tab stands where YAML wants spaces", "indent with spaces"),
    ("mapping values are not allowed", "a `: ` where none can be", "quote a text that has `: `, or indent it right"),
    ("cannot start any token", "a text may not begin with this character", "put the text in quotes"),
    ("block end", "the indentation does not fit the lines above", "align this line with its neighbours"),
    ("expected key", "the indentation does not fit the lines above", "align this line with its neighbours"),
    ("could not find expected ':'", "a key without its `:`", "write `key: value`"),
    ("end of stream", "the file ends inside a quoted text or a bracket", "close it"),
    ("',' or ']'", "a list in brackets is not closed", "write `]`, or a comma between its values"),
    ("',' or '}'", "a mapping in braces is not closed", "write `}`, or a comma between its pairs"),
    ("control characters", "a control character", "delete it"),
)  # fmt: skip
#: a key followed by the full-width colon of a Chinese keyboard, which YAML reads as part of a text
_WIDE = re.compile(r"(?P<before>[ \t]*(?:- +)?)(?P<key>[a-z_]\w*)[ \t]*：", re.ASCII)


def wide_colon(lines: Sequence[str], line: int) -> tuple[int, int, str, str] | None:
    """Return line, column, message and hint of a full-width colon behind a key, in this line or the one above.

    Lines and columns count from 0. The parser fails only behind such a line, so its own position would mislead.
    """
    for number in (line, line - 1):
        if 0 <= number < len(lines) and (found := _WIDE.match(lines[number])):
            hint = f"write `{found['key']}: `, with a plain colon and a space"
            return number, found.end() - 1, "a full-width colon `：` stands where `: ` should", hint
    return None


def explained(parser_message: str) -> tuple[str, str]:
    """Return message and hint for a message of the parser."""
    for words, message, hint in _PLAIN_WORDS:
        if words in parser_message:
            return message, hint
    return f"not YAML: {parser_message}", "check this line and the one above it"
