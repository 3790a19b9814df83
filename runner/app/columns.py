"""A sample of a user's data file: its number of rows, and which columns suit a prompt or an image."""

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

#: rows whose values are kept; all rows are counted
_LOOKED_AT = 200
#: usual names of a column of prompts, best first
_PROMPTS = ("prompt", "提示词", "画面描述", "描述词", "描述", "description", "text", "文案", "subject", "主题")
#: reserved words of a template
_JINJA = {"and", "or", "not", "if", "else", "in", "is", "true", "false", "none", "True", "False", "None"}
_URL = re.compile(r"https?://\S+\Z")


@dataclass(frozen=True, slots=True)
class Table:
    """Number of rows and first values of a data file."""

    rows: int
    #: values of the first rows, without empty ones, by column in the file's order
    values: Mapping[str, Sequence[str]]

    def prompt(self, taken: Callable[[str], bool]) -> str | None:
        """Return the column that reads most like a prompt, or None.

        A template must be able to name it, and it must not set a parameter: `taken(name)` is true for those.
        """
        usable = [name for name in self.values if is_variable(name) and not taken(name)]
        named = [name for usual in _PROMPTS for name in usable if name.lower() == usual]
        if named or not usable:
            return named[0] if named else None
        return max(usable, key=self._wordiness)

    def image(self) -> str | None:
        """Return the first column that holds only links, or None."""
        return next((name for name, values in self.values.items() if is_variable(name) and _are_links(values)), None)

    def _wordiness(self, name: str) -> float:
        """Return the average number of letters of a value, lowered for columns with gaps, links or figures."""
        letters = sum(sum(map(str.isalpha, value)) for value in self.values[name] if not _URL.match(value))
        return letters / min(self.rows, _LOOKED_AT) * len(self.values[name])


def is_variable(name: str) -> bool:
    """Return True if a template can name a column so."""
    return name.isidentifier() and name not in _JINJA


def _are_links(values: Sequence[str]) -> bool:
    return bool(values) and all(_URL.match(value) for value in values)


def look(path: Path) -> Table:
    """Read a data file once and return its sample.

    Raises UsageError or ManifestError for what is wrong in it.
    """
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
    """Raise UsageError with a conversion command if the file has a spreadsheet's encoding."""
    if found := encoding.reads_as(path):
        hint = encoding.cure(str(path), found)
        raise UsageError(
            f"{path} is not UTF-8; it reads as {found}, as spreadsheets save it", hint=hint[0].upper() + hint[1:]
        )
