"""Checks of the directories that a job needs for `doctor`: free space, owner, access rights and file system."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from runner.app.sign import Sign, ok, problem, warning
from runner.errors import DiskError
from runner.pipeline.outcome import Exit
from runner.report.text import size
from runner.store import ground

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

#: bytes of free space below which a run will stop soon, and below which it may stop
_LEAST, _LITTLE = 50 * 10**6, 10**9
#: files that must still fit into a file system's table of names
_FEW = 1_000
#: files whose owner is checked
_MOST = 1_000


def home(path: Path) -> Iterator[Sign]:
    """Check `RUNNER_HOME`, the directory that an account's jobs share."""
    yield from _place("home", path, "Set RUNNER_HOME to a directory of yours on a disk of this machine.")
    if path.is_dir():
        yield from _foreign("home", path)
        yield from _open("home", [path, path / "accounts"], stat.S_IWGRP | stat.S_IWOTH)
        yield from _open("home", path.glob("accounts/*"), stat.S_IRWXG | stat.S_IRWXO)


def job(directory: Path) -> Iterator[Sign]:
    """Check a job directory and its private state directory."""
    yield from _place("job", directory, "Mend that, or choose another directory with --out.")
    state = directory / ".runner"
    if not state.is_dir():
        return
    yield from _foreign("job", state)
    yield from _open("job", [state], stat.S_IRWXG | stat.S_IRWXO)
    if not (state / "ballast").exists():
        yield warning("job", f"{state}/ballast is gone: room for ids when the disk is full", "The next run makes it.")


def _place(check: str, path: Path, hint: str) -> Iterator[Sign]:
    """Check file system and free space of a directory.

    `hint` says what to do if the file system is unfit.
    """
    existing = _nearest(path)
    try:
        ground.check(existing)
    except DiskError as error:
        yield problem(check, error.message, hint, Exit.DISK)
        return
    free = shutil.disk_usage(existing).free
    kind = ground.file_system(existing)
    message = f"{path}{'' if existing == path else ' (to be made)'}, {size(free)} free{f' on {kind}' if kind else ''}"
    names = os.statvfs(existing)
    if free < _LEAST or (names.f_files and names.f_favail < _FEW):
        yield problem(check, f"{message}: the disk is full", "Make room.", Exit.DISK)
    elif free < _LITTLE:
        yield warning(check, f"{message}: little", "Make room before a large job.")
    else:
        yield ok(check, message)


def _nearest(path: Path) -> Path:
    """Return the directory, or its nearest parent that exists, in which it would be made."""
    path = path.absolute()
    return next(directory for directory in (path, *path.parents) if directory.exists())


def _foreign(check: str, directory: Path) -> Iterator[Sign]:
    """Report the first file of another user, as a run with sudo leaves them."""
    user = os.geteuid()
    for path in islice((directory, *directory.rglob("*")), _MOST if user else 0):
        with suppress(FileNotFoundError):  # a run may delete files meanwhile
            if path.lstat().st_uid != user:
                yield problem(check, f"{path} belongs to another user", f"sudo chown -R {user} {directory}")
                return


def _open(check: str, directories: Iterable[Path], rights: int) -> Iterator[Sign]:
    """Report the directories that give any of these access rights to other users."""
    for directory in directories:
        if directory.is_dir() and directory.stat().st_mode & rights:
            yield warning(check, f"{directory} is open to others", f"chmod go-rwx {directory}")
