"""Write the results of a job: `results.jsonl`, and exports as JSON lines, CSV and Parquet.

`results.jsonl` has a line for each task in manifest order and is rewritten atomically at the end of a run. CSV is for
spreadsheets and Parquet for data frames. Both are flat: a row is a task, and `vars` and `request` have a column for
each of their names, found in a first pass over the rows. Rows are written as they are read, so memory does not grow
with the job.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from runner.errors import ConfigError
from runner.files import atomic_write
from runner.tasks.transitions import BOUGHT_IN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    #: rows of a job from the store; every iteration starts from the beginning
    Rows = Iterable[Mapping[str, Any]]


_OUTPUT_FIELDS = ("file", "bytes", "sha256", "media_type")
_LEADING_FIELDS = ("key", "index", "repeat", "state", "provider", "model")
_NESTED_FIELDS = ("vars", "request")
ERROR_FIELDS = ("reason", "code", "message")
_TIME_FIELDS = ("queued_at", "submitted_at", "finished_at")
#: integers from this value do not fit into a column of 64 bits
_INT64_LIMIT = 2**63
_BOM = "\ufeff"
#: beginning of a cell that a spreadsheet takes for a formula; it ignores blanks and invisible characters, and accepts
#: the full-width signs of Chinese keyboards
_FORMULA = re.compile(r"[\t\r\n]|[\s\x00-\x1f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]*[=+@＝＋－＠-]")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
#: digits of the longest integer that a spreadsheet keeps exactly
_MAX_DIGITS = 15
#: rows of a group of a Parquet file, which are in memory at a time
_GROUP_ROWS = 5_000
_NONE_TYPE = type(None)


def result_dict(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the documented line of results.jsonl for a row of the store.

    Every key is present, and unknown values are None. A row that shares the purchase of another also has `same_as`.
    """
    evidence = row.get("evidence") or ""
    is_linked = row["remote_id"] is not None and evidence.startswith(BOUGHT_IN)
    bought_in = evidence.removeprefix(BOUGHT_IN) if is_linked else None
    line = {
        "key": row["key"],
        "index": row["position"],
        "repeat": row["repeat"],
        "vars": row["vars"],
        "provider": row["provider"],
        "model": row["model"],
        "request": row["request"],
        "state": row["state"],
        "remote_id": row["remote_id"],
        "outputs": [{name: output[name] for name in _OUTPUT_FIELDS} for output in row["outputs"] if output["file"]],
        "error": {"reason": row["reason"], "code": row["code"], "message": row["message"]},
        "attempts": row["attempts"] + row["doubts"] + (row["remote_id"] is not None and bought_in is None),
        "cost": None if row["cost"] is None else row["spent"],
        "bought_in": bought_in,
        "evidence": _evidence(evidence),
        "queued_at": _iso_timestamp_or_none(row["queued_at"]),
        "submitted_at": _iso_timestamp_or_none(row["submitted_at"]),
        "finished_at": _iso_timestamp_or_none(row["finished_at"]),
    }
    if "same_as" in row:
        line |= {"attempts": 0, "same_as": row["same_as"]}
    return line


def _evidence(reason: str) -> str | None:
    """Return what the state of a purchase rests on, or None if the answer to its submit said it."""
    is_word = " " not in reason or reason.startswith("http ")  # such as "throttled", and "http 200"
    return None if is_word else reason


def _iso_timestamp_or_none(seconds: float | None) -> str | None:
    return None if seconds is None else iso_timestamp(seconds)


def iso_timestamp(seconds: float) -> str:
    """Return seconds since the epoch as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write(path: Path, rows: Rows) -> None:
    """Write a line for each row and replace the file atomically; a symbolic link is replaced, not followed."""
    with atomic_write(path) as file:
        write_jsonl(rows, file)


def write_jsonl(rows: Rows, file: BinaryIO) -> None:
    """Write one line for each task, as in results.jsonl."""
    file.writelines(orjson.dumps(result_dict(row), option=orjson.OPT_APPEND_NEWLINE) for row in rows)


@dataclass(slots=True)
class ColumnTypes:
    """Names under `vars` and `request` in the order of their first appearance, with the types of their values."""

    vars: dict[str, set[type]] = field(default_factory=dict)
    request: dict[str, set[type]] = field(default_factory=dict)

    def scan(self, rows: Rows) -> ColumnTypes:
        """Add names and types of every row, and return self."""
        for row in rows:
            for part in _NESTED_FIELDS:
                known = getattr(self, part)
                for name, value in row[part].items():
                    known.setdefault(name, set()).add(_value_type(value))
        return self

    def names(self) -> list[str]:
        """Return all column names, such as `vars.subject` and `request.prompt`."""
        return [f"{part}.{name}" for part in _NESTED_FIELDS for name in getattr(self, part)]


def _value_type(value: Any) -> type:
    """Return the type of a value; an integer that 64 bits cannot hold counts as text."""
    return str if type(value) is int and not -_INT64_LIMIT <= value < _INT64_LIMIT else type(value)


def write_csv(rows: Rows, columns: ColumnTypes, file: BinaryIO) -> None:
    """Write rows as CSV (RFC 4180) in UTF-8 with a byte order mark, which Excel needs to read Chinese.

    Several outputs of a task share one cell, separated by `; `.
    """
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=False)
    try:
        text.write(_BOM)
        writer = csv.writer(text)
        writer.writerow(
            [
                *_LEADING_FIELDS,
                *columns.names(),
                *("files", "bytes", "sha256", "media_type"),
                *(f"error.{name}" for name in ERROR_FIELDS),
                *("remote_id", "attempts", "cost"),
                *_TIME_FIELDS,
                "evidence",
            ]
        )
        for row in rows:
            writer.writerow([csv_cell(value) for value in _csv_row(result_dict(row), columns)])
        text.flush()
    finally:
        text.detach()


def _csv_row(result: Mapping[str, Any], columns: ColumnTypes) -> Iterator[Any]:
    yield from (result[name] for name in _LEADING_FIELDS)
    for part in _NESTED_FIELDS:
        yield from (result[part].get(name) for name in getattr(columns, part))
    outputs = result["outputs"]
    yield "; ".join(output["file"] for output in outputs)
    yield sum(output["bytes"] or 0 for output in outputs) if outputs else None
    for name in ("sha256", "media_type"):
        yield "; ".join(output[name] or "" for output in outputs)
    yield from (result["error"][name] for name in ERROR_FIELDS)
    yield from (result[name] for name in ("remote_id", "attempts", "cost", *_TIME_FIELDS, "evidence"))


def csv_cell(value: Any) -> str:
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
        return text.isdecimal() and len(text) > _MAX_DIGITS
    return _FORMULA.match(text) is not None


def import_pyarrow() -> Any:
    """Return the pyarrow module; raises ConfigError with the command that installs it."""
    try:
        import pyarrow.parquet  # noqa: PLC0415 - 170 MB that only this format needs
    except ImportError as error:
        raise ConfigError(
            f"parquet needs pyarrow ({error})",
            hint='pip install "genrunner[parquet]", or choose --format jsonl or csv.',
        ) from None
    return pyarrow


def write_parquet(rows: Rows, columns: ColumnTypes, file: BinaryIO) -> None:
    """Write rows as Parquet.

    A row is a task, and `outputs` is a list of structures. A column of `vars` or `request` with mixed types is text.
    Raises ConfigError if pyarrow is missing.
    """
    arrow = import_pyarrow()
    schema = _parquet_schema(arrow, columns)
    remaining = iter(rows)
    with arrow.parquet.ParquetWriter(file, schema) as writer:
        while group := [_parquet_row(result_dict(row), columns) for row in islice(remaining, _GROUP_ROWS)]:
            writer.write_table(arrow.Table.from_pylist(group, schema=schema))


def _parquet_schema(arrow: Any, columns: ColumnTypes) -> Any:
    text, integer, number, time = arrow.string(), arrow.int64(), arrow.float64(), arrow.timestamp("ms", tz="UTC")
    types = {bool: arrow.bool_(), int: integer, float: number, str: text}
    output = arrow.struct([("file", text), ("bytes", integer), ("sha256", text), ("media_type", text)])
    nested = [
        (f"{part}.{name}", types[_column_type(kinds)])
        for part in _NESTED_FIELDS
        for name, kinds in getattr(columns, part).items()
    ]
    return arrow.schema(
        [
            ("key", text),
            ("index", integer),
            ("repeat", integer),
            ("state", text),
            ("provider", text),
            ("model", text),
            *nested,
            ("outputs", arrow.list_(output)),
            *((f"error.{name}", text) for name in ERROR_FIELDS),
            ("remote_id", text),
            ("attempts", integer),
            ("cost", number),
            *((name, time) for name in _TIME_FIELDS),
            ("evidence", text),
        ]
    )


def _column_type(kinds: set[type]) -> type:
    """Return the type of a column from the types of its values: integers and floats are float, other mixtures text."""
    present = kinds - {_NONE_TYPE}
    if present == {int, float}:
        return float
    return next(iter(present)) if len(present) == 1 and present <= {bool, int, float} else str


def _parquet_row(result: Mapping[str, Any], columns: ColumnTypes) -> dict[str, Any]:
    row = {name: result[name] for name in (*_LEADING_FIELDS, "outputs", "remote_id", "attempts", "evidence")}
    row["cost"] = None if result["cost"] is None else float(result["cost"])
    for part in _NESTED_FIELDS:
        for name, kinds in getattr(columns, part).items():
            row[f"{part}.{name}"] = _column_value(result[part].get(name), _column_type(kinds))
    row |= {f"error.{name}": result["error"][name] for name in ERROR_FIELDS}
    row |= {name: result[name] and datetime.fromisoformat(result[name]) for name in _TIME_FIELDS}
    return row


def _column_value(value: Any, kind: type) -> Any:
    if value is None or type(value) is kind:
        return value
    return float(value) if kind is float else orjson.dumps(value).decode()
