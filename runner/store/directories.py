"""Private directories whose names are synced to disk."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: name of the directory of all accounts in RUNNER_HOME
ACCOUNTS = "accounts"


def make(directory: Path, *, mode: int = 0o700) -> None:
    """Make the directory and its missing parents, and sync each new name.

    Without the sync a crash could remove a new directory and all that is in it. Parents get the mode that the umask
    allows, since results are for other users too. Raises OSError.
    """
    for missing in reversed([path for path in (directory, *directory.parents) if not path.exists()]):
        missing.mkdir(mode=mode if missing == directory else 0o777, exist_ok=True)
        with suppress(PermissionError):  # the parent may be writable but not readable
            sync(missing.parent)
    if not directory.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def make_account(directory: Path) -> None:
    """Make the private directory of an account.

    If it stands in RUNNER_HOME, its parents up to RUNNER_HOME are made private too. Raises OSError.
    """
    parents = [directory.parent.parent, directory.parent] if directory.parent.name == ACCOUNTS else []
    for path in [*parents, directory]:
        make(path)
        _narrow(path)


def sync(directory: Path) -> None:
    """Sync the names in a directory to disk.

    Raises OSError.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _narrow(path: Path) -> None:
    """Restrict a directory to its owner, if it holds nothing but accounts.

    An older version, or another umask, may have made it wider. A user's home or a public directory is left as it is.
    """
    status = path.stat()
    if not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or status.st_uid != os.geteuid():
        return
    if ACCOUNTS in {path.parent.name, path.name} or all(entry.name == ACCOUNTS for entry in path.iterdir()):
        path.chmod(0o700)
