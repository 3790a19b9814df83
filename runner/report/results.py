"""Write `results.jsonl`: one line for each task in manifest order, rewritten atomically at the end of a run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from runner.report.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_SAVED = ("file", "bytes", "sha256", "media_type")


def line(row: Mapping[str, Any]) -> dict[str, Any]:
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
        "outputs": [{name: output[name] for name in _SAVED} for output in row["outputs"] if output["file"]],
        "error": {"reason": row["reason"], "code": row["code"], "message": row["message"]},
        "attempts": row["attempts"] + row["doubts"] + (row["remote_id"] is not None),
        "cost": None if row["cost"] is None else row["spent"],
        "queued_at": _or_null(row["queued_at"]),
        "submitted_at": _or_null(row["submitted_at"]),
        "finished_at": _or_null(row["finished_at"]),
    }


def _or_null(seconds: float | None) -> str | None:
    return None if seconds is None else timestamp(seconds)


def timestamp(seconds: float) -> str:
    """Return seconds since the epoch as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a line for each row and replace the file atomically; a symbolic link is replaced, not followed."""
    with whole_file(path) as file:
        file.writelines(orjson.dumps(line(row), option=orjson.OPT_APPEND_NEWLINE) for row in rows)
