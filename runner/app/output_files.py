"""Output files of finished tasks: find missing ones before a run, and rename them if the manifest's naming changed.

Neither buys anything. A missing file is downloaded again as long as the provider keeps it.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from runner.errors import StateError
from runner.net.partial_file import disk_errors, link_as, make_shard
from runner.scheduler.download import stems
from runner.store.read_only import open_read_only
from runner.store.task_rows import SHARD_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from runner.store.read_only import SavedFile
    from runner.store.store import Store


#: finished tasks above which a run does not look for missing files; `verify` has no such limit
_MAX_CHECKED_TASKS = 200_000


def keys_of_missing_files(directory: Path) -> list[str]:
    """Return the keys of finished tasks with a file that is missing, each once."""
    if not (directory / ".runner" / "state.db").exists():
        return []
    present = _present_files(directory)
    # a state that cannot be read is reported, or made, when the run opens it
    with suppress(StateError), open_read_only(directory / ".runner") as job:
        if job.counts().get("done", 0) > _MAX_CHECKED_TASKS:
            return []
        return list(dict.fromkeys(saved.key for saved in job.saved_files() if saved.file not in present))
    return []


def _present_files(directory: Path) -> set[str]:
    """Return the names in the job directory, and in its directories of outputs."""
    present = {entry.name for entry in os.scandir(directory)}
    for name in [each for each in present if SHARD_NAME.fullmatch(each)]:
        with suppress(NotADirectoryError):
            present.update(f"{name}/{entry.name}" for entry in os.scandir(directory / name))
    return present


async def rename_outputs(store: Store, directory: Path) -> int:
    """Rename the files of finished tasks as the manifest names them now, and return how many were renamed.

    The order is: link the new name, update the row, remove the old name. So a crash at any point leaves the file there.
    """
    renamed = 0
    with open_read_only(directory / ".runner") as job:
        for saved in job.saved_files():
            wanted = list(stems(saved.name, saved.key, saved.number, many=saved.output_count > 1))
            stem, _, extension = saved.file.rpartition(".")
            if stem not in wanted[:2]:
                renamed += await _rename_output(store, directory, saved, wanted, extension)
    return renamed


async def _rename_output(store: Store, directory: Path, saved: SavedFile, wanted: list[str], extension: str) -> bool:
    """Give a file the first of the wanted names that is free.

    Returns False if none is.
    """
    old = directory / saved.file
    for stem in wanted:
        new = f"{stem}.{extension}"
        with disk_errors(directory / new):
            make_shard(directory / new, directory)
        if link_as(old, directory / new):
            await store.rename_output(saved.task_id, saved.number, new)
            if new != saved.file:
                old.unlink(missing_ok=True)
            if old.parent != directory:
                with suppress(OSError):  # it is not empty yet
                    old.parent.rmdir()
            return True
    return False


def broken_files(directory: Path) -> Iterator[dict[str, str]]:
    """Yield every file of a finished task that is not as recorded: its key, file, and why (`missing` or `changed`)."""
    with open_read_only(directory / ".runner") as job:
        for row in job.results():
            for output in row["outputs"] if row["state"] == "done" else ():
                if (why := _defect(directory, output)) is not None:
                    yield {"key": row["key"], "file": output["file"], "why": why}


def keys_of_broken_files(directory: Path) -> list[str]:
    """Return the keys of the tasks whose files are missing or changed, each once."""
    return list(dict.fromkeys(found["key"] for found in broken_files(directory)))


def _defect(directory: Path, output: Mapping[str, Any]) -> str | None:
    """Return `missing` or `changed`, or None if the file has the recorded hash."""
    try:
        with (directory / output["file"]).open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == output["sha256"]
    except OSError:
        return "missing"
    return None if same else "changed"
