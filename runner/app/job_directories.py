"""Find job directories, without reading the names of a million outputs.

This module imports little, because `status` is called often and must start fast.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runner.store.task_rows import SHARD_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: levels below the first directory that are searched
_DEPTH = 3
#: state directory of a job
_STATE = ".runner"
#: directories that a job has of its own, in which no job is
_OWN = (_STATE, "gallery")


def job_directories(root: Path) -> Iterator[Path]:
    """Yield every job directory down to the third level, `root` itself included, level by level and sorted."""
    level = [root]
    for depth in range(_DEPTH + 1):
        below: list[Path] = []
        for directory in level:
            is_job = (directory / _STATE / "state.db").exists()
            if is_job:
                yield directory
            if depth < _DEPTH and not (is_job and _has_only_own_directories(directory)):
                found = _subdirectories(directory)
                below += [each for each in found if not (is_job and _holds_outputs(each))]
        level = sorted(below)


def _subdirectories(directory: Path) -> list[Path]:
    try:
        with os.scandir(directory) as entries:
            return [directory / entry.name for entry in entries if entry.name != _STATE and entry.is_dir()]
    except OSError:  # not readable, or gone meanwhile
        return []


def _holds_outputs(directory: Path) -> bool:
    """Return whether a directory in a job's is one of its directories of outputs, and is known to have none itself."""
    return SHARD_NAME.fullmatch(directory.name) is not None and directory.lstat().st_nlink == 2  # noqa: PLR2004 - see below


def _has_only_own_directories(directory: Path) -> bool:
    """Return whether a job directory is known to have no directory but its own.

    A directory has a link for its name, one for `.` and one for the `..` in each directory in it. Where a file system
    does not count so, the answer is no.
    """
    own = sum((directory / name).is_dir() and not (directory / name).is_symlink() for name in _OWN)
    return directory.stat().st_nlink == 2 + own
