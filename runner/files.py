"""Write files atomically: into a temporary file beside the target, then renamed."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def atomic_write(path: Path, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Yield a file that replaces `path` when the block succeeds; `mode` holds its permission bits.

    An error in the block removes the temporary file and leaves `path` as it was. The data is synced to disk before the
    rename. A symbolic link at `path` is replaced, not followed. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


#: name of the directory of all accounts in RUNNER_HOME
ACCOUNTS = "accounts"


def make_directory(directory: Path, *, mode: int = 0o700) -> None:
    """Make the directory and its missing parents, and sync each new name.

    Without the sync a crash could remove a new directory and all that is in it. Parents get the mode that the umask
    allows, since results are for other users too. Raises OSError.
    """
    for missing in reversed([path for path in (directory, *directory.parents) if not path.exists()]):
        missing.mkdir(mode=mode if missing == directory else 0o777, exist_ok=True)
        with suppress(PermissionError):  # the parent may be writable but not readable
            sync_directory(missing.parent)
    if not directory.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def make_account_directory(directory: Path) -> None:
    """Make the private directory of an account.

    If it stands in RUNNER_HOME, its parents up to RUNNER_HOME are made private too. Raises OSError.
    """
    parents = [directory.parent.parent, directory.parent] if directory.parent.name == ACCOUNTS else []
    for path in [*parents, directory]:
        make_directory(path)
        _restrict_to_owner(path)


def sync_directory(directory: Path) -> None:
    """Sync the names in a directory to disk.

    Raises OSError.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _restrict_to_owner(path: Path) -> None:
    """Restrict a directory to its owner, if it holds nothing but accounts.

    An older version, or another umask, may have made it wider. A user's home or a public directory is left as it is.
    """
    status = path.stat()
    if not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or status.st_uid != os.geteuid():
        return
    if ACCOUNTS in {path.parent.name, path.name} or all(entry.name == ACCOUNTS for entry in path.iterdir()):
        path.chmod(0o700)
