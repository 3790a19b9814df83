"""Open files without following links, replace them atomically, and make private directories."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


#: name of the directory of all accounts in RUNNER_HOME
ACCOUNTS = "accounts"
#: characters of a name that the name of its temporary file repeats
_MAX_NAME = 60
#: number of Linux' request to share blocks (a reflink); elsewhere it is unknown and fails
_FICLONE = 0x40049409
#: bytes that are copied at a time
_CHUNK = 1 << 20


class NotRegularFileError(OSError):
    """Path of a directory, a pipe, a socket or a device, where a regular file was expected."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EINVAL, "not a plain file", str(path))


def open_file(path: Path, flags: int, *, follow_links: bool = False) -> int:
    """Open a regular file with `flags` of os.open, and return its descriptor; a new file gets mode 0600.

    A symbolic link at `path` raises OSError with ELOOP unless `follow_links` is set: someone else may have planted it.
    A pipe is not waited for. Raises NotRegularFileError and OSError.
    """
    links = 0 if follow_links else os.O_NOFOLLOW
    descriptor = os.open(path, flags | links | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularFileError(path)
    return descriptor


def open_to_read(path: Path, *, follow_links: bool = False) -> BinaryIO:
    """Open a regular file for reading. Raises what `open_file` raises."""
    return os.fdopen(open_file(path, os.O_RDONLY, follow_links=follow_links), "rb")


def file_mark(file: Path | int) -> tuple[int, ...]:
    """Return what changes when a file is written or replaced: size, times in nanoseconds, and inode.

    `file` is a path or the descriptor of an open file. Raises OSError.
    """
    found = os.stat(file)  # noqa: PTH116 - of a descriptor too
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def create_file(path: Path, mode: int = 0o600) -> BinaryIO:
    """Create a file with these permission bits, and open it for writing.

    A symbolic link at `path` counts as a file. Raises FileExistsError and OSError.
    """
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, mode), "wb")


def sync_file(file: BinaryIO) -> None:
    """Write what is buffered, and sync the file to disk. Raises OSError."""
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def atomic_write(path: Path, mode: int = 0o644, *, temporary: Path | None = None) -> Iterator[BinaryIO]:
    """Yield a file that replaces `path` when the block succeeds; `mode` holds its permission bits.

    An error in the block removes the temporary file and leaves `path` as it was. The data is synced to disk before the
    rename. A symbolic link at `path` is replaced, not followed. Where there is one writer, `temporary` may name the
    temporary file, so that one which a killed process left is removed. Raises OSError.
    """
    if temporary is None:  # a file system takes 255 bytes, and a character may need four
        temporary = path.with_name(f".{path.name[:_MAX_NAME]}.{secrets.token_hex(4)}")
    else:
        temporary.unlink(missing_ok=True)
    file = create_file(temporary, mode)
    try:
        with file:
            yield file
            sync_file(file)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def copy_file(source: Path, target: Path, mode: int = 0o600) -> None:
    """Copy a file to a name that is free, and leave nothing there if that fails; `mode` holds its permission bits.

    The name is reserved first, and then replaced by the whole copy, which shares the blocks of the source where the
    file system can. Raises FileExistsError and OSError.
    """
    create_file(target).close()
    try:
        with source.open("rb") as original, atomic_write(target, mode) as copy:
            if not _share_blocks(original, copy):
                while chunk := original.read(_CHUNK):
                    copy.write(chunk)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _share_blocks(source: BinaryIO, target: BinaryIO) -> bool:
    """Make an empty file a copy that shares the blocks of another one. Return False where that cannot be done."""
    try:
        fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError:
        return False
    return True


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
        with suppress(PermissionError, NotImplementedError):  # FAT and some network disks keep no permissions
            path.chmod(0o700)
