"""Comparison of a job's files with the hashes that were recorded when they were saved."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from runner.store.view import view

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


def broken_files(directory: Path) -> Iterator[dict[str, str]]:
    """Yield every file of a finished task that is not as recorded: its key, file, and why (`missing` or `changed`)."""
    with view(directory / ".runner") as job:
        for row in job.results():
            for output in row["outputs"] if row["state"] == "done" else ():
                if (why := _wrong(directory, output)) is not None:
                    yield {"key": row["key"], "file": output["file"], "why": why}


def broken_keys(directory: Path) -> list[str]:
    """Return the keys of the tasks whose files are missing or changed, each once."""
    return list(dict.fromkeys(found["key"] for found in broken_files(directory)))


def _wrong(directory: Path, output: Mapping[str, Any]) -> str | None:
    """Return `missing` or `changed`, or None if the file has the recorded hash."""
    try:
        with (directory / output["file"]).open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == output["sha256"]
    except OSError:
        return "missing"
    return None if same else "changed"
