"""What `doctor` says of the directories that a job needs: room, rights, file system."""

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

#: bytes below which a run will stop soon, and below which it may
_LEAST, _LITTLE = 50 * 10**6, 10**9
#: files that a file system must still have names for
_FEW = 1_000
#: files whose owner is looked at
_MOST = 1_000


def home(path: Path) -> Iterator[Sign]:
    """What the jobs of an account share: `RUNNER_HOME`."""
    yield from _place("home", path, "Set RUNNER_HOME to a directory of yours on a disk of this machine.")
    if path.is_dir():
        yield from _foreign("home", path)
        yield from _open("home", [path, path / "accounts"], stat.S_IWGRP | stat.S_IWOTH)
        yield from _open("home", path.glob("accounts/*"), stat.S_IRWXG | stat.S_IRWXO)


def job(directory: Path) -> Iterator[Sign]:
    """A job's directory, with the private part where its state is."""
    yield from _place("job", directory, "Mend that, or choose another directory with --out.")
    state = directory / ".runner"
    if not state.is_dir():
        return
    yield from _foreign("job", state)
    yield from _open("job", [state], stat.S_IRWXG | stat.S_IRWXO)
    if not (state / "ballast").exists():
        yield warning("job", f"{state}/ballast is gone: room for ids when the disk is full", "The next run makes it.")


def _place(check: str, path: Path, cure: str) -> Iterator[Sign]:
    there = _nearest(path)
    try:
        ground.check(there)
    except DiskError as error:
        yield problem(check, error.message, cure, Exit.DISK)
        return
    room = shutil.disk_usage(there)
    kind = ground.file_system(there)
    said = f"{path}{'' if there == path else ' (to be made)'}, {size(room.free)} free{f' on {kind}' if kind else ''}"
    names = os.statvfs(there)
    if room.free < _LEAST or (names.f_files and names.f_favail < _FEW):
        yield problem(check, f"{said}: the disk is full", "Make room.", Exit.DISK)
    elif room.free < _LITTLE:
        yield warning(check, f"{said}: little", "Make room before a large job.")
    else:
        yield ok(check, said)


def _nearest(path: Path) -> Path:
    """The directory itself, or the one it would be made in."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def _foreign(check: str, directory: Path) -> Iterator[Sign]:
    """The first thing in it that another user made, as happens with sudo."""
    us = os.geteuid()
    for path in islice((directory, *directory.rglob("*")), _MOST if us else 0):
        with suppress(FileNotFoundError):  # a run goes on meanwhile
            if path.lstat().st_uid != us:
                yield problem(check, f"{path} belongs to another user", f"sudo chown -R {us} {directory}")
                return


def _open(check: str, directories: Iterable[Path], rights: int) -> Iterator[Sign]:
    """Those in which others may do what only their owner should."""
    for directory in directories:
        if directory.is_dir() and directory.stat().st_mode & rights:
            yield warning(check, f"{directory} is open to others", f"chmod go-rwx {directory}")
