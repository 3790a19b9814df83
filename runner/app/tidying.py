"""Before a run: files of finished tasks that are not where they should be, or should be called something else now.

Neither buys anything: what is missing is fetched again while the provider has it, what is called otherwise is renamed.
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

#: finished tasks whose files are looked for at the start of a run; `verify` looks for any number
_LOOKED_FOR = 200_000


def missing(directory: Path) -> list[str]:
    """Keys of finished tasks with a file that is not here any more, each once."""
    if not (directory / ".runner" / "state.db").exists():
        return []
    here = {entry.name for entry in os.scandir(directory)}
    # a state that cannot be read is told of, or made, when it is opened
    with suppress(StateError), view(directory / ".runner") as job:
        if job.counts().get("done", 0) > _LOOKED_FOR:
            return []
        return list(dict.fromkeys(saved.key for saved in job.files() if saved.file not in here))
    return []


async def rename(store: Store, directory: Path) -> int:
    """Call the files of finished tasks as the manifest does now; how many were renamed.

    The new name first, then the row, then the old name goes: whatever strikes, the file is there.
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
    old = directory / saved.file
    for stem in wanted:
        new = f"{stem}.{extension}"
        if call(old, directory / new):
            await store.put_name(saved.task_id, saved.number, new)
            if new != saved.file:
                old.unlink(missing_ok=True)
            return True
    return False
