"""Checks of the directories that a job needs for `doctor`: free space, owner, access rights and file system."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from runner.app.sign import CheckResult, ok, problem, warning
from runner.errors import DiskError
from runner.pipeline.outcome import Exit
from runner.report.text import format_size
from runner.store import ground

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

#: bytes of free space below which a run will stop soon, and below which it may stop
_MIN_FREE_BYTES, _LOW_FREE_BYTES = 50 * 10**6, 10**9
#: files that must still fit into a file system's table of names
_MIN_FREE_NAMES = 1_000
#: files whose owner is checked
_MAX_OWNER_CHECKS = 1_000


def check_home(path: Path) -> Iterator[CheckResult]:
    """Check `RUNNER_HOME`, the directory that an account's jobs share."""
    yield from _check_directory("home", path, "Set RUNNER_HOME to a directory of yours on a disk of this machine.")
    if path.is_dir():
        yield from _check_owner("home", path)
        yield from _check_rights("home", [path, path / "accounts"], stat.S_IWGRP | stat.S_IWOTH)
        yield from _check_rights("home", path.glob("accounts/*"), stat.S_IRWXG | stat.S_IRWXO)


def check_job_directory(directory: Path) -> Iterator[CheckResult]:
    """Check a job directory and its private state directory."""
    yield from _check_directory("job", directory, "Mend that, or choose another directory with --out.")
    state = directory / ".runner"
    if not state.is_dir():
        return
    yield from _check_owner("job", state)
    yield from _check_rights("job", [state], stat.S_IRWXG | stat.S_IRWXO)
    if not (state / "ballast").exists():
        yield warning("job", f"{state}/ballast is gone: room for ids when the disk is full", "The next run makes it.")


def _check_directory(check: str, path: Path, hint: str) -> Iterator[CheckResult]:
    """Check file system and free space of a directory.

    `hint` says what to do if the file system is unfit.
    """
    existing = _nearest_existing(path)
    try:
        ground.check(existing)
    except DiskError as error:
        yield problem(check, error.message, hint, Exit.DISK)
        return
    free = shutil.disk_usage(existing).free
    kind = ground.filesystem_kind(existing)
    message = (
        f"{path}{'' if existing == path else ' (to be made)'}, {format_size(free)} free{f' on {kind}' if kind else ''}"
    )
    names = os.statvfs(existing)
    if free < _MIN_FREE_BYTES or (names.f_files and names.f_favail < _MIN_FREE_NAMES):
        yield problem(check, f"{message}: the disk is full", "Make room.", Exit.DISK)
    elif free < _LOW_FREE_BYTES:
        yield warning(check, f"{message}: little", "Make room before a large job.")
    else:
        yield ok(check, message)


def _nearest_existing(path: Path) -> Path:
    """Return the directory, or its nearest parent that exists, in which it would be made."""
    path = path.absolute()
    return next(directory for directory in (path, *path.parents) if directory.exists())


def _check_owner(check: str, directory: Path) -> Iterator[CheckResult]:
    """Report the first file of another user, as a run with sudo leaves them."""
    user = os.geteuid()
    for path in islice((directory, *directory.rglob("*")), _MAX_OWNER_CHECKS if user else 0):
        with suppress(FileNotFoundError):  # a run may delete files meanwhile
            if path.lstat().st_uid != user:
                yield problem(check, f"{path} belongs to another user", f"sudo chown -R {user} {directory}")
                return


def _check_rights(check: str, directories: Iterable[Path], rights: int) -> Iterator[CheckResult]:
    """Report the directories that give any of these access rights to other users."""
    for directory in directories:
        if directory.is_dir() and directory.stat().st_mode & rights:
            yield warning(check, f"{directory} is open to others", f"chmod go-rwx {directory}")
