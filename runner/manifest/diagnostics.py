"""Collect the errors and warnings of a manifest: each once, in the order of the file, and every kind of them.

It also holds the words of messages: how a value is shown, which name was meant, and what a message of the YAML parser
means.
"""

from __future__ import annotations

import re
import unicodedata
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from runner.errors import MAX_SHOWN, Diagnostic, ManifestError, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runner.errors import Kind

#: largest number of errors, and of warnings, kept for sorting; a file with an error in each of 10^6 rows must not fill
#: the memory
MAX_KEPT = 2_000
#: largest number of kinds of which the first error is kept although there are so many, or that are counted apart
MAX_KINDS = 200
#: message of the parser for a tab
TAB: Final = "'\\t'"
#: words in a message of the parser, and our message and hint for it
_EXPLANATIONS: Final = (
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
_WIDE_COLON = re.compile(r"(?P<before>[ \t]*(?:- +)?)(?P<key>[a-z_]\w*)[ \t]*：", re.ASCII)
_SEPARATORS = re.compile(r"[\s-]+")
_CAMEL_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
#: letters from which a name may be a mistyped one, with a letter in the place of another, with two slips; and the most
_TYPO_LENGTH, _SWAP_LENGTH, _TWO_TYPOS_LENGTH, _LONGEST_NAME = 4, 5, 9, 64
#: digits in a key, to sort by their number
_DIGITS = re.compile(r"([0-9]+)")


class _Kept:
    """Diagnostics kept for sorting. Those beyond the largest number are counted, but the first of a kind is kept."""

    def __init__(self) -> None:
        self.kept: set[Diagnostic] = set()
        self.dropped = 0
        #: by kind, how many were not kept; None until there are too many to keep
        self._more: dict[Kind, int] | None = None

    def add(self, diagnostic: Diagnostic) -> None:
        """Keep a diagnostic, or count it."""
        if len(self.kept) < MAX_KEPT or diagnostic in self.kept or not self._count_more(diagnostic):
            self.kept.add(diagnostic)
        else:
            self.dropped += 1

    def more(self) -> dict[Kind, int]:
        """Return how many of each kind were not kept."""
        return {kind: count for kind, count in (self._more or {}).items() if count}

    def _count_more(self, diagnostic: Diagnostic) -> bool:
        """Count a diagnostic that is not kept. Return False if it is the first of its kind, and so is to be kept."""
        if self._more is None:
            self._more = dict.fromkeys(map(kind_of, self.kept), 0)
        kind = kind_of(diagnostic)
        if kind in self._more:
            self._more[kind] += 1
        elif len(self._more) < MAX_KINDS:
            self._more[kind] = 0
            return False
        return True


class Diagnostics:
    """Errors and warnings of the manifest `file`. Length and truth are those of the errors."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._errors, self._warnings = _Kept(), _Kept()

    def __len__(self) -> int:
        return len(self._errors.kept) + self._errors.dropped

    def __bool__(self) -> bool:
        return bool(self._errors.kept)

    def add(
        self,
        location: tuple[int, int],
        key: str,
        message: str,
        hint: str = "",
        *,
        file: str = "",
        warn: bool = False,
    ) -> None:
        """Add an error, or a warning if `warn` is set, at (line, column) of a file, by default the manifest."""
        kept = self._warnings if warn else self._errors
        kept.add(Diagnostic(file or self.file, *location, key, message, hint))

    def extend(self, errors: list[Diagnostic]) -> None:
        """Add errors. Only count those beyond the largest number to keep, but keep the first of every kind."""
        for error in errors:
            self._errors.add(error)

    def error(self) -> ManifestError:
        """Return the exception that holds the first errors, the number of the others, and the warnings."""
        ordered = self._ordered(self._errors.kept)
        first, others = ordered[:MAX_SHOWN], ordered[MAX_SHOWN:]
        omitted = len(others) + self._errors.dropped
        more = self._warnings.more() | self._errors.more()
        # of a value that is wrong, the error says enough
        wrong = {(error.file, error.line, error.key) for error in ordered}
        warnings = [each for each in self.warnings if (each.file, each.line, each.key) not in wrong]
        return ManifestError(first, omitted=omitted, others=others, more=more, warnings=warnings)

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """Return the warnings that were kept, in the order of the files."""
        return tuple(self._ordered(self._warnings.kept))

    def has_errors_in(self, file: str) -> bool:
        """Return whether there is an error in `file`."""
        return any(error.file == file for error in self._errors.kept)

    def raise_any(self) -> None:
        """Raise ManifestError if there are errors."""
        if self:
            raise self.error()

    def _ordered(self, diagnostics: set[Diagnostic]) -> list[Diagnostic]:
        return sorted(
            diagnostics, key=lambda each: (each.file != self.file, each.file, each.line, each.column, _key_order(each))
        )


def _key_order(diagnostic: Diagnostic) -> tuple[list[tuple[bool, int, str]], Diagnostic]:
    """Return a sort key that has `matrix.n[9]` before `matrix.n[10]`."""
    parts = _DIGITS.split(diagnostic.key)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts], diagnostic


def describe_value(value: Any) -> str:
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


def normalize_name(name: str) -> str:
    """Return a name in the form of parameters: lower case, no full-width or invisible characters, no spaces."""
    visible = "".join(char for char in unicodedata.normalize("NFKC", name) if unicodedata.category(char) != "Cf")
    return _SEPARATORS.sub("_", _CAMEL_CASE.sub("_", visible.strip())).casefold()


def is_nearly(written: str, intended: str) -> bool:
    """Return whether a name is probably another one that was mistyped, or written with other separators.

    That is one letter left out, added or exchanged with its neighbour; in names of five letters or more also one letter
    in the place of another, and in those of nine or more two such slips. Names that differ in digits are two names.
    """
    one, other = normalize_name(written), normalize_name(intended)
    shorter, longer = sorted((one.replace("_", ""), other.replace("_", "")), key=len)
    if shorter == longer or len(longer) < _TYPO_LENGTH or len(longer) > _LONGEST_NAME:
        return shorter == longer
    if len(longer) - len(shorter) > 2 or re.findall(r"\d+", shorter) != re.findall(r"\d+", longer):  # noqa: PLR2004
        return False
    most = 2 if len(longer) >= _TWO_TYPOS_LENGTH else 1
    swapped = 1 if len(longer) >= _SWAP_LENGTH else 2
    return _edit_distance(shorter, longer, swapped) <= most


def _edit_distance(one: str, other: str, other_letter: int) -> int:
    """Return the number of letters left out, added or exchanged with a neighbour, plus the price of each other one."""
    above: list[int] = []
    row = list(range(len(other) + 1))
    for at, letter in enumerate(one, 1):
        above, before, row = row, above, [at]
        for to, wanted in enumerate(other, 1):
            least = min(above[to] + 1, row[to - 1] + 1, above[to - 1] + (other_letter if letter != wanted else 0))
            if at > 1 and to > 1 and letter == other[to - 2] and one[at - 2] == wanted:
                least = min(least, before[to - 2] + 1)
            row.append(least)
    return row[-1]


def closest_hint(name: str, known: Iterable[str], label: str = "it may be") -> str:
    """Return a hint with the nearest known name, or with the first twenty if none is near."""
    names = sorted(known)
    by_form = {normalize_name(each): each for each in names}
    if near := get_close_matches(normalize_name(name), by_form, n=1, cutoff=0.6):
        return f"did you mean `{by_form[near[0]]}`?"
    return f"{label} " + (", ".join(f"`{each}`" for each in names[:20]) or "none")


def explain_syntax_error(parser_message: str) -> tuple[str, str]:
    """Return message and hint for a message of the parser."""
    for words, message, hint in _EXPLANATIONS:
        if words in parser_message:
            return message, hint
    return f"not YAML: {parser_message}", "check this line and the one above it"


def find_wide_colon(lines: Sequence[str], line: int) -> tuple[int, int, str, str] | None:
    """Return line, column, message and hint of a full-width colon behind a key, in this line or the one above.

    Lines and columns count from 0. The parser fails only behind such a line, so its own position would mislead.
    """
    for number in (line, line - 1):
        if 0 <= number < len(lines) and (found := _WIDE_COLON.match(lines[number])):
            hint = f"write `{found['key']}: `, with a plain colon and a space"
            return number, found.end() - 1, "a full-width colon `：` stands where `: ` should", hint
    return None
