"""A job's results for other programs: `jsonl` for programs, `csv` for spreadsheets, `parquet` for data frames.

`jsonl` has the lines of results.jsonl. The other two are flat: a row is a task, so that costs add up and tasks can be
counted; `vars` and `request` have a column for each of their names, found in a first pass over the same results.
Every format is written as it is read: memory does not grow with the job.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from runner.report.results import line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    #: a job's rows as the store holds them, each time from the beginning
    Rows = Iterable[Mapping[str, Any]]

_BITS = 2**63
_BOM = "\ufeff"
_PARTS = ("vars", "request")
_BEFORE = ("key", "index", "repeat", "state", "provider", "model")
_AFTER = ("remote_id", "attempts", "cost", "queued_at", "submitted_at", "finished_at")
_ERROR = ("reason", "code", "message")
#: a spreadsheet takes a cell that begins so for a formula: blanks and what cannot be seen do not count, and the wide
#: signs of Chinese keyboards do
_FORMULA = re.compile(r"[\t\r\n]|[\s\x00-\x1f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]*[=+@＝＋－＠-]")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
#: digits of the longest whole number that a spreadsheet keeps
_DIGITS = 15


def jsonl(rows: Rows, file: BinaryIO) -> None:
    """One line a task, as in results.jsonl."""
    file.writelines(orjson.dumps(line(row), option=orjson.OPT_APPEND_NEWLINE) for row in rows)


@dataclass(slots=True)
class Columns:
    """The names under `vars` and `request`, in the order in which they first appear, and the kinds of their values."""

    vars: dict[str, set[type]] = field(default_factory=dict)
    request: dict[str, set[type]] = field(default_factory=dict)

    def see(self, rows: Rows) -> Columns:
        """Learn from every row."""
        for row in rows:
            for part in _PARTS:
                known = getattr(self, part)
                for name, value in row[part].items():
                    known.setdefault(name, set()).add(_kind(value))
        return self

    def names(self) -> list[str]:
        """All of them, like `vars.subject` and `request.prompt`."""
        return [f"{part}.{name}" for part in _PARTS for name in getattr(self, part)]


def _kind(value: Any) -> type:
    """Its type; a whole number that 64 bits do not hold counts as text."""
    return str if type(value) is int and not -_BITS <= value < _BITS else type(value)


def as_csv(rows: Rows, columns: Columns, file: BinaryIO) -> None:
    """RFC 4180 in UTF-8 with a BOM, so that Excel reads Chinese; several outputs of a task stand in one cell, `; `."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=False)
    try:
        text.write(_BOM)
        writer = csv.writer(text)
        outputs = ("files", "bytes", "sha256", "media_type")
        writer.writerow([*_BEFORE, *columns.names(), *outputs, *(f"error.{name}" for name in _ERROR), *_AFTER])
        for row in rows:
            writer.writerow([cell(value) for value in _flat(line(row), columns)])
        text.flush()
    finally:
        text.detach()


def _flat(told: Mapping[str, Any], columns: Columns) -> Iterator[Any]:
    yield from (told[name] for name in _BEFORE)
    for part in _PARTS:
        yield from (told[part].get(name) for name in getattr(columns, part))
    outputs = told["outputs"]
    yield "; ".join(output["file"] for output in outputs)
    yield sum(output["bytes"] or 0 for output in outputs) if outputs else None
    for name in ("sha256", "media_type"):
        yield "; ".join(output[name] or "" for output in outputs)
    yield from (told["error"][name] for name in _ERROR)
    yield from (told[name] for name in _AFTER)


def cell(value: Any) -> str:
    """A value as a spreadsheet may see it: numbers as they are, and no text that it would run or round."""
    match value:
        case None:
            return ""
        case str():
            return f"'{value}" if _is_dangerous(value) else value
        case _:
            return orjson.dumps(value).decode()


def _is_dangerous(text: str) -> bool:
    """Whether it would be run as a formula, or is an id that would lose its last digits."""
    if text[:1].isalpha():  # nearly all are
        return False
    if _NUMBER.fullmatch(text):
        return text.isdecimal() and len(text) > _DIGITS
    return _FORMULA.match(text) is not None
