"""Export a job's results: `jsonl` for programs, `csv` for spreadsheets, `parquet` for data frames.

`jsonl` has the lines of results.jsonl. The other two are flat. A row is a task, so that costs add up and tasks can be
counted. `vars` and `request` have a column for each of their names, found in a first pass over the same results.
Every format is written while it is read, so memory does not grow with the job.
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

    #: rows of a job from the store; every iteration starts from the beginning
    Rows = Iterable[Mapping[str, Any]]

_BITS = 2**63
_BOM = "\ufeff"
_PARTS = ("vars", "request")
_BEFORE = ("key", "index", "repeat", "state", "provider", "model")
_AFTER = ("remote_id", "attempts", "cost", "queued_at", "submitted_at", "finished_at")
_ERROR = ("reason", "code", "message")
#: beginning of a cell that a spreadsheet takes for a formula; it ignores blanks and invisible characters, and accepts
#: the full-width signs of Chinese keyboards
_FORMULA = re.compile(r"[\t\r\n]|[\s\x00-\x1f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]*[=+@＝＋－＠-]")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
#: digits of the longest integer that a spreadsheet keeps exactly
_DIGITS = 15


def jsonl(rows: Rows, file: BinaryIO) -> None:
    """Write one line for each task, as in results.jsonl."""
    file.writelines(orjson.dumps(line(row), option=orjson.OPT_APPEND_NEWLINE) for row in rows)


@dataclass(slots=True)
class Columns:
    """Names under `vars` and `request` in the order of their first appearance, with the types of their values."""

    vars: dict[str, set[type]] = field(default_factory=dict)
    request: dict[str, set[type]] = field(default_factory=dict)

    def see(self, rows: Rows) -> Columns:
        """Add names and types of every row, and return self."""
        for row in rows:
            for part in _PARTS:
                known = getattr(self, part)
                for name, value in row[part].items():
                    known.setdefault(name, set()).add(_kind(value))
        return self

    def names(self) -> list[str]:
        """Return all column names, such as `vars.subject` and `request.prompt`."""
        return [f"{part}.{name}" for part in _PARTS for name in getattr(self, part)]


def _kind(value: Any) -> type:
    """Return the type of a value; an integer that 64 bits cannot hold counts as text."""
    return str if type(value) is int and not -_BITS <= value < _BITS else type(value)


def as_csv(rows: Rows, columns: Columns, file: BinaryIO) -> None:
    """Write rows as CSV (RFC 4180) in UTF-8 with a byte order mark, which Excel needs to read Chinese.

    Several outputs of a task share one cell, separated by `; `.
    """
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


def _flat(result: Mapping[str, Any], columns: Columns) -> Iterator[Any]:
    yield from (result[name] for name in _BEFORE)
    for part in _PARTS:
        yield from (result[part].get(name) for name in getattr(columns, part))
    outputs = result["outputs"]
    yield "; ".join(output["file"] for output in outputs)
    yield sum(output["bytes"] or 0 for output in outputs) if outputs else None
    for name in ("sha256", "media_type"):
        yield "; ".join(output[name] or "" for output in outputs)
    yield from (result["error"][name] for name in _ERROR)
    yield from (result[name] for name in _AFTER)


def cell(value: Any) -> str:
    """Return a value as CSV text; a quote precedes text that a spreadsheet would run as a formula or round."""
    match value:
        case None:
            return ""
        case str():
            return f"'{value}" if _is_dangerous(value) else value
        case _:
            return orjson.dumps(value).decode()


def _is_dangerous(text: str) -> bool:
    """Return whether a spreadsheet would run the text as a formula, or drop the last digits of an id."""
    if text[:1].isalpha():  # the common case, without a regular expression
        return False
    if _NUMBER.fullmatch(text):
        return text.isdecimal() and len(text) > _DIGITS
    return _FORMULA.match(text) is not None
