"""What is wrong with the syntax of a YAML file, in words that help."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

TAB: Final = "'\\t'"
#: the parser's words, and what a person should hear
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
#: a key with the colon of a Chinese keyboard behind it, which YAML takes for a part of a text
_WIDE = re.compile(r"(?P<before>[ \t]*(?:- +)?)(?P<key>[a-z_]\w*)[ \t]*：", re.ASCII)


def wide_colon(lines: Sequence[str], line: int) -> tuple[int, int, str, str] | None:
    """Line, column, message and hint of a full-width colon behind a key, here or in the line above; all from 0.

    The parser stumbles over what follows such a line, and would have its readers look there.
    """
    for number in (line, line - 1):
        if 0 <= number < len(lines) and (found := _WIDE.match(lines[number])):
            hint = f"write `{found['key']}: `, with a plain colon and a space"
            return number, found.end() - 1, "a full-width colon `：` stands where `: ` should", hint
    return None


def explained(told: str) -> tuple[str, str]:
    """Message and hint for what the parser told."""
    for words, message, hint in _PLAIN_WORDS:
        if words in told:
            return message, hint
    return f"not YAML: {told}", "check this line and the one above it"
