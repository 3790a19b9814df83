"""Output files of finished tasks: find missing ones before a run, and rename them if the manifest's naming changed.

Neither buys anything. A missing file is downloaded again as long as the provider keeps it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from runner.errors import StateError
from runner.net.part import call
from runner.pipeline.download import stems
from runner.store.view import view

if TYPE_CHECKING:
    from pathlib import Path

    from runner.store.store import Store
    from runner.store.view import SavedFile

#: finished tasks above which a run does not look for missing files; `verify` has no such limit
_LOOKED_FOR = 200_000


def missing(directory: Path) -> list[str]:
    """Return the keys of finished tasks with a file that is missing, each once."""
    if not (directory / ".runner" / "state.db").exists():
        return []
    present = {entry.name for entry in os.scandir(directory)}
    # a state that cannot be read is reported, or made, when the run opens it
    with suppress(StateError), view(directory / ".runner") as job:
        if job.counts().get("done", 0) > _LOOKED_FOR:
            return []
        return list(dict.fromkeys(saved.key for saved in job.files() if saved.file not in present))
    return []


async def rename(store: Store, directory: Path) -> int:
    """Rename the files of finished tasks as the manifest names them now, and return how many were renamed.

    The order is: link the new name, update the row, remove the old name. So a crash at any point leaves the file there.
    """
    renamed = 0
    with view(directory / ".runner") as job:
        for saved in job.files():
            wanted = list(stems(saved.name, saved.key, saved.number, many=saved.of > 1))
            stem, _, extension = saved.file.rpartition(".")
            if stem not in wanted[:2]:
                renamed += await _renamed(store, directory, saved, wanted, extension)
    return renamed


async def _renamed(store: Store, directory: Path, saved: SavedFile, wanted: list[str], extension: str) -> bool:
    """Give a file the first of the wanted names that is free.

    Returns False if none is.
    """
    old = directory / saved.file
    for stem in wanted:
        new = f"{stem}.{extension}"
        if call(old, directory / new):
            await store.put_name(saved.task_id, saved.number, new)
            if new != saved.file:
                old.unlink(missing_ok=True)
            return True
    return False
