"""Directories of ours: for their owner alone, and with their names on the disk."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: where the accounts are, below RUNNER_HOME
ACCOUNTS = "accounts"


def make(directory: Path, *, mode: int = 0o700) -> None:
    """The directory, with the parents it lacks; each new name is synced, or a crash could take all that is below it.

    Parents have what the umask allows, since results are for others too. Raises OSError.
    """
    for place in reversed([place for place in (directory, *directory.parents) if not place.exists()]):
        place.mkdir(mode=mode if place == directory else 0o777, exist_ok=True)
        with suppress(PermissionError):  # one may be made where nobody may look
            sync(place.parent)
    if not directory.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def make_account(directory: Path) -> None:
    """An account's directory; where it is one of RUNNER_HOME's, these are for their owner alone too. Raises OSError."""
    above = [directory.parent.parent, directory.parent] if directory.parent.name == ACCOUNTS else []
    for place in [*above, directory]:
        make(place)
        _narrow(place)


def sync(directory: Path) -> None:
    """The names in a directory, on the disk."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _narrow(place: Path) -> None:
    """Made by an older version, or under another umask; somebody's home or a public place is not ours to close."""
    found = place.stat()
    if not found.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or found.st_uid != os.geteuid():
        return
    if ACCOUNTS in {place.parent.name, place.name} or all(entry.name == ACCOUNTS for entry in place.iterdir()):
        place.chmod(0o700)
