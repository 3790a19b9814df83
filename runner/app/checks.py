"""Looking at what a job has: are its files whole, and does the provider know of more than we do."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from runner.store.view import view

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


def broken_files(directory: Path) -> Iterator[dict[str, str]]:
    """Every promised file that is not what was promised: key, file, and `missing` or `changed`."""
    with view(directory / ".runner") as job:
        for row in job.results():
            for output in row["outputs"] if row["state"] == "done" else ():
                if (why := _wrong(directory, output)) is not None:
                    yield {"key": row["key"], "file": output["file"], "why": why}


def broken_keys(directory: Path) -> list[str]:
    """The tasks of those files, each once."""
    return list(dict.fromkeys(found["key"] for found in broken_files(directory)))


def _wrong(directory: Path, output: Mapping[str, Any]) -> str | None:
    try:
        with (directory / output["file"]).open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == output["sha256"]
    except OSError:
        return "missing"
    return None if same else "changed"
