"""A first look at somebody's data file: how many rows it has, and what its columns are good for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.errors import UsageError
from runner.manifest import encoding, items
from runner.manifest.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

#: rows whose values are looked at; all of them are counted
_LOOKED_AT = 200
#: what people call the column that says what they want, best first
_PROMPTS = ("prompt", "提示词", "画面描述", "描述词", "描述", "description", "text", "文案", "subject", "主题")
#: words that a template reads as its own
_JINJA = {"and", "or", "not", "if", "else", "in", "is", "true", "false", "none", "True", "False", "None"}
_URL = re.compile(r"https?://\S+\Z")


@dataclass(frozen=True, slots=True)
class Table:
    """What a first look at a data file shows."""

    rows: int
    #: by column, in their order: the values of the first rows that have one
    values: Mapping[str, Sequence[str]]

    def prompt(self, taken: Callable[[str], bool]) -> str | None:
        """The column that reads most like a wish, of those a template can name and no parameter has taken."""
        usable = [name for name in self.values if is_variable(name) and not taken(name)]
        named = [name for wish in _PROMPTS for name in usable if name.lower() == wish]
        if named or not usable:
            return named[0] if named else None
        return max(usable, key=self._wordiness)

    def image(self) -> str | None:
        """A column with nothing but links."""
        return next((name for name, values in self.values.items() if is_variable(name) and _are_links(values)), None)

    def _wordiness(self, name: str) -> float:
        """Letters a value has on average; a column with gaps, of links or of figures has few."""
        letters = sum(sum(map(str.isalpha, value)) for value in self.values[name] if not _URL.match(value))
        return letters / min(self.rows, _LOOKED_AT) * len(self.values[name])


def is_variable(name: str) -> bool:
    """Whether a template can name it."""
    return name.isidentifier() and name not in _JINJA


def _are_links(values: Sequence[str]) -> bool:
    return bool(values) and all(_URL.match(value) for value in values)


def look(path: Path) -> Table:
    """Read a data file once; raises UsageError with its mistakes."""
    if path.suffix.lower() not in items.SUFFIXES:
        raise UsageError(
            f"{path}: a data file ends in {', '.join(items.SUFFIXES)}", hint="Convert it; spreadsheets save CSV UTF-8."
        )
    report = Report(str(path))
    count = 0
    values: dict[str, list[str]] = {}
    for row in items.rows(path, str(path), report):
        count += 1
        for name, value in row.values.items() if count <= _LOOKED_AT else ():
            values.setdefault(name, []).extend([str(value)] if value not in {None, ""} else [])
    if report:
        _tell_encoding(path)
        report.raise_any()
    return Table(count, values)


def _tell_encoding(path: Path) -> None:
    """Raise UsageError for a file in the encoding of a spreadsheet, with the command that mends it."""
    if found := encoding.reads_as(path):
        hint = encoding.cure(str(path), found)
        raise UsageError(
            f"{path} is not UTF-8; it reads as {found}, as spreadsheets save it", hint=hint[0].upper() + hint[1:]
        )
