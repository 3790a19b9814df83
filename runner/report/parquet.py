"""A job's results as Parquet, with pyarrow: typed columns for data frames, written in groups of rows."""

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

#: rows of a group: what is in memory at a time
_GROUP = 5_000
_NONE = type(None)
_TIMES = ("queued_at", "submitted_at", "finished_at")
_ERROR = ("reason", "code", "message")


def pyarrow() -> Any:
    """The library; raises ConfigError that says how to get it."""
    try:
        import pyarrow.parquet  # noqa: PLC0415 - 170 MB that only this format needs
    except ImportError as error:
        raise ConfigError(
            f"parquet needs pyarrow ({error})",
            hint='pip install "genrunner[parquet]", or choose --format jsonl or csv.',
        ) from None
    return pyarrow


def parquet(rows: Rows, columns: Columns, file: BinaryIO) -> None:
    """A row is a task; `outputs` a list of structures; what has no one type in `vars` or `request` is text."""
    arrow = pyarrow()
    schema = _schema(arrow, columns)
    left = iter(rows)
    with arrow.parquet.ParquetWriter(file, schema) as writer:
        while group := [_flat(line(row), columns) for row in islice(left, _GROUP)]:
            writer.write_table(arrow.Table.from_pylist(group, schema=schema))


def _schema(arrow: Any, columns: Columns) -> Any:
    text, whole, number, time = arrow.string(), arrow.int64(), arrow.float64(), arrow.timestamp("ms", tz="UTC")
    types = {bool: arrow.bool_(), int: whole, float: number, str: text}
    output = arrow.struct([("file", text), ("bytes", whole), ("sha256", text), ("media_type", text)])
    open_ended = [
        (f"{part}.{name}", types[_type(kinds)])
        for part in ("vars", "request")
        for name, kinds in getattr(columns, part).items()
    ]
    return arrow.schema(
        [
            ("key", text),
            ("index", whole),
            ("repeat", whole),
            ("state", text),
            ("provider", text),
            ("model", text),
            *open_ended,
            ("outputs", arrow.list_(output)),
            *((f"error.{name}", text) for name in _ERROR),
            ("remote_id", text),
            ("attempts", whole),
            ("cost", number),
            *((name, time) for name in _TIMES),
        ]
    )


def _type(kinds: set[type]) -> type:
    """What a column is: numbers among themselves are numbers, a mixture is text."""
    real = kinds - {_NONE}
    if real == {int, float}:
        return float
    return next(iter(real)) if len(real) == 1 and real <= {bool, int, float} else str


def _flat(told: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    row = {name: told[name] for name in ("key", "index", "repeat", "state", "provider", "model", "outputs")}
    row |= {name: told[name] for name in ("remote_id", "attempts")}
    row["cost"] = None if told["cost"] is None else float(told["cost"])
    for part in ("vars", "request"):
        for name, kinds in getattr(columns, part).items():
            row[f"{part}.{name}"] = _value(told[part].get(name), _type(kinds))
    row |= {f"error.{name}": told["error"][name] for name in _ERROR}
    row |= {name: told[name] and datetime.fromisoformat(told[name]) for name in _TIMES}
    return row


def _value(value: Any, kind: type) -> Any:
    if value is None or type(value) is kind:
        return value
    return float(value) if kind is float else orjson.dumps(value).decode()
