"""Export a job's results as Parquet with pyarrow: typed columns for data frames, written in groups of rows."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from runner.errors import ConfigError
from runner.report.results import result_dict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.report.export import ColumnTypes, Rows

#: rows of a group, which are in memory at a time
_GROUP_ROWS = 5_000
_NONE_TYPE = type(None)
_TIME_FIELDS = ("queued_at", "submitted_at", "finished_at")
_ERROR_COLUMNS = ("reason", "code", "message")


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
        for part in ("vars", "request")
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
            *((f"error.{name}", text) for name in _ERROR_COLUMNS),
            ("remote_id", text),
            ("attempts", integer),
            ("cost", number),
            *((name, time) for name in _TIME_FIELDS),
        ]
    )


def _column_type(kinds: set[type]) -> type:
    """Return the type of a column from the types of its values: integers and floats are float, other mixtures text."""
    present = kinds - {_NONE_TYPE}
    if present == {int, float}:
        return float
    return next(iter(present)) if len(present) == 1 and present <= {bool, int, float} else str


def _parquet_row(result: Mapping[str, Any], columns: ColumnTypes) -> dict[str, Any]:
    row = {name: result[name] for name in ("key", "index", "repeat", "state", "provider", "model", "outputs")}
    row |= {name: result[name] for name in ("remote_id", "attempts")}
    row["cost"] = None if result["cost"] is None else float(result["cost"])
    for part in ("vars", "request"):
        for name, kinds in getattr(columns, part).items():
            row[f"{part}.{name}"] = _column_value(result[part].get(name), _column_type(kinds))
    row |= {f"error.{name}": result["error"][name] for name in _ERROR_COLUMNS}
    row |= {name: result[name] and datetime.fromisoformat(result[name]) for name in _TIME_FIELDS}
    return row


def _column_value(value: Any, kind: type) -> Any:
    if value is None or type(value) is kind:
        return value
    return float(value) if kind is float else orjson.dumps(value).decode()
