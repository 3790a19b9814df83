"""Output files of finished tasks: find missing ones before a run, and rename them if the manifest's naming changed.

Neither buys anything. A missing file is downloaded again as long as the provider keeps it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from runner.errors import StateError
from runner.net.part import link_as
from runner.pipeline.download import stems
from runner.store.view import open_read_only

if TYPE_CHECKING:
    from pathlib import Path

    from runner.store.store import Store
    from runner.store.view import SavedFile

#: finished tasks above which a run does not look for missing files; `verify` has no such limit
_MAX_CHECKED_TASKS = 200_000


def keys_of_missing_files(directory: Path) -> list[str]:
    """Return the keys of finished tasks with a file that is missing, each once."""
    if not (directory / ".runner" / "state.db").exists():
        return []
    present = {entry.name for entry in os.scandir(directory)}
    # a state that cannot be read is reported, or made, when the run opens it
    with suppress(StateError), open_read_only(directory / ".runner") as job:
        if job.counts().get("done", 0) > _MAX_CHECKED_TASKS:
            return []
        return list(dict.fromkeys(saved.key for saved in job.saved_files() if saved.file not in present))
    return []


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
        if link_as(old, directory / new):
            await store.rename_output(saved.task_id, saved.number, new)
            if new != saved.file:
                old.unlink(missing_ok=True)
            return True
    return False
