"""Export a job's results as Parquet with pyarrow: typed columns for data frames, written in groups of rows."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from runner.errors import ConfigError
from runner.report.results import line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.report.export import Columns, Rows

#: rows of a group, which are in memory at a time
_GROUP = 5_000
_NONE = type(None)
_TIMES = ("queued_at", "submitted_at", "finished_at")
_ERROR = ("reason", "code", "message")


def pyarrow() -> Any:
    """Return the pyarrow module; raises ConfigError with the command that installs it."""
    try:
        import pyarrow.parquet  # noqa: PLC0415 - 170 MB that only this format needs
    except ImportError as error:
        raise ConfigError(
            f"parquet needs pyarrow ({error})",
            hint='pip install "genrunner[parquet]", or choose --format jsonl or csv.',
        ) from None
    return pyarrow


def parquet(rows: Rows, columns: Columns, file: BinaryIO) -> None:
    """Write rows as Parquet.

    A row is a task, and `outputs` is a list of structures. A column of `vars` or `request` with mixed types is text.
    Raises ConfigError if pyarrow is missing.
    """
    arrow = pyarrow()
    schema = _schema(arrow, columns)
    remaining = iter(rows)
    with arrow.parquet.ParquetWriter(file, schema) as writer:
        while group := [_flat(line(row), columns) for row in islice(remaining, _GROUP)]:
            writer.write_table(arrow.Table.from_pylist(group, schema=schema))


def _schema(arrow: Any, columns: Columns) -> Any:
    text, integer, number, time = arrow.string(), arrow.int64(), arrow.float64(), arrow.timestamp("ms", tz="UTC")
    types = {bool: arrow.bool_(), int: integer, float: number, str: text}
    output = arrow.struct([("file", text), ("bytes", integer), ("sha256", text), ("media_type", text)])
    nested = [
        (f"{part}.{name}", types[_type(kinds)])
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
            *((f"error.{name}", text) for name in _ERROR),
            ("remote_id", text),
            ("attempts", integer),
            ("cost", number),
            *((name, time) for name in _TIMES),
        ]
    )


def _type(kinds: set[type]) -> type:
    """Return the type of a column from the types of its values: integers and floats are float, other mixtures text."""
    present = kinds - {_NONE}
    if present == {int, float}:
        return float
    return next(iter(present)) if len(present) == 1 and present <= {bool, int, float} else str


def _flat(result: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    row = {name: result[name] for name in ("key", "index", "repeat", "state", "provider", "model", "outputs")}
    row |= {name: result[name] for name in ("remote_id", "attempts")}
    row["cost"] = None if result["cost"] is None else float(result["cost"])
    for part in ("vars", "request"):
        for name, kinds in getattr(columns, part).items():
            row[f"{part}.{name}"] = _value(result[part].get(name), _type(kinds))
    row |= {f"error.{name}": result["error"][name] for name in _ERROR}
    row |= {name: result[name] and datetime.fromisoformat(result[name]) for name in _TIMES}
    return row


def _value(value: Any, kind: type) -> Any:
    if value is None or type(value) is kind:
        return value
    return float(value) if kind is float else orjson.dumps(value).decode()
