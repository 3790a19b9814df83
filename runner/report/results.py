"""Write `results.jsonl`: one line for each task in manifest order, rewritten atomically at the end of a run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from runner.report.whole_file import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_OUTPUT_FIELDS = ("file", "bytes", "sha256", "media_type")


def result_dict(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the documented line of results.jsonl for a row of the store.

    Every key is present, and unknown values are None.
    """
    return {
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
        "attempts": row["attempts"] + row["doubts"] + (row["remote_id"] is not None),
        "cost": None if row["cost"] is None else row["spent"],
        "queued_at": _iso_timestamp_or_none(row["queued_at"]),
        "submitted_at": _iso_timestamp_or_none(row["submitted_at"]),
        "finished_at": _iso_timestamp_or_none(row["finished_at"]),
    }


def _iso_timestamp_or_none(seconds: float | None) -> str | None:
    return None if seconds is None else iso_timestamp(seconds)


def iso_timestamp(seconds: float) -> str:
    """Return seconds since the epoch as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a line for each row and replace the file atomically; a symbolic link is replaced, not followed."""
    with atomic_write(path) as file:
        file.writelines(orjson.dumps(result_dict(row), option=orjson.OPT_APPEND_NEWLINE) for row in rows)
