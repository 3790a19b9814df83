"""Partial file of a download (`.part` with its sidecar `.part.tag`), and its publication under the final name.

Files are opened without following links, with mode 0600 in a directory of mode 0700. A hard link gives a file its final
name and replaces nothing, so that no file of the user is ever overwritten. The order is: fsync, name, row in the store.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections import deque
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING

from runner.errors import DiskError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CHUNK = 1 << 20
#: buffers that the system accepts in one `writev` call
_PIECES = 1024
#: umask, read once at import: reading it means setting it, which would affect other threads
_UMASK = os.umask(0o077)
os.umask(_UMASK)
#: bytes above which an ETag is not kept; a strong ETag is short
_TAG_LIMIT = 1024
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Part:
    """Partial file with its size and SHA-256 hash. Methods that use the disk block, so call them in a thread.

    No file is created before the first bytes are written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tag_path = path.with_name(path.name + ".tag")
        self.size = 0
        self._file: int | None = None
        self._hash = hashlib.sha256()
        #: ETag to restart the file with before the next bytes, or None
        self._anew: str | None = None

    def __repr__(self) -> str:
        return f"PartialFile({self.path.name}, {self.size} bytes)"

    @property
    def is_new(self) -> bool:
        """Return True if the directory exists and holds no file to resume; fast enough for the event loop."""
        return self._file is None and self.path.parent.is_dir() and not os.path.lexists(self.path)

    def resume(self) -> str:
        """Hash the existing bytes and return their strong ETag; without one, empty the file and return ""."""
        with disk(self.path):
            file = self._opened()
            self.size = os.fstat(file).st_size
        tag = self._tag()
        if not tag or not self.size:
            self.restart("")
            return ""
        with disk(self.path):
            os.lseek(file, 0, os.SEEK_SET)
            while data := os.read(file, _CHUNK):
                self._hash.update(data)
        return tag

    def anew(self, tag: str) -> None:
        """Empty the file before the next write, without blocking.

        `tag` is the ETag for a later resume, or "" for none.
        """
        self._hash, self.size, self._anew = hashlib.sha256(), 0, tag

    def restart(self, tag: str) -> None:
        """Empty the file now, with the ETag `tag` for a later resume or "" for none."""
        self.anew(tag)
        self.write(())

    def write(self, pieces: Sequence[bytes]) -> None:
        """Append the pieces and add them to the hash."""
        with disk(self.path):
            file = self._opened()
            if self._anew is not None:
                self._begin(file, self._anew)
                self._anew = None
            _write_all(file, pieces)
        for piece in pieces:
            self._hash.update(piece)
            self.size += len(piece)

    def head(self, size: int) -> bytes:
        """Return the first bytes of the content that a resume keeps."""
        return b"" if self._file is None or self._anew is not None else os.pread(self._file, size, 0)

    def sha256(self) -> str:
        """Return the hash in hexadecimal."""
        return self._hash.hexdigest()

    def sync(self) -> None:
        """Flush the file to the disk (fsync)."""
        with disk(self.path):
            os.fsync(self._opened())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _opened(self) -> int:
        if self._file is None:
            # without parents: a job directory that was moved away must not be created again
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            if self.path.parent.is_symlink():
                raise OSError(errno.ELOOP, "the directory of unfinished downloads is a link")
            self._file = _opened(self.path)
        return self._file

    def _begin(self, file: int, tag: str) -> None:
        self.tag_path.unlink(missing_ok=True)
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        if tag.startswith('"') and len(tag) < _TAG_LIMIT:
            side = _opened(self.tag_path)
            try:
                os.write(side, tag.encode("utf-8", "backslashreplace"))
            finally:
                os.close(side)

    def _tag(self) -> str:
        with suppress(OSError, UnicodeDecodeError):
            if stat.S_ISREG(self.tag_path.lstat().st_mode):
                tag = self.tag_path.read_bytes()[:_TAG_LIMIT].decode("ascii")
                return tag if tag.startswith('"') and tag.isprintable() else ""
        return ""


def _write_all(file: int, pieces: Sequence[bytes]) -> None:
    """Write all pieces without joining them, in several calls if the system accepts fewer bytes at once."""
    remaining = deque(pieces)
    while remaining:
        written = os.writev(file, list(islice(remaining, _PIECES)))
        while remaining and written >= len(remaining[0]):
            written -= len(remaining.popleft())
        if written:
            remaining[0] = remaining[0][written:]


def publish(part: Path, directory: Path, name: str, extension: str) -> Path:
    """Give a partial file its final name and return the path.

    Raises FileExistsError if the name is taken, and keeps the partial file then. Raises DiskError.
    """
    target = directory / f"{name}.{extension}"
    with disk(target, taken=FileExistsError):
        try:
            os.link(part, target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _copied(part, target)
        target.chmod(0o666 & ~_UMASK)  # the state is private, outputs are as public as their directory
        part.unlink()
        part.with_name(part.name + ".tag").unlink(missing_ok=True)
        _sync_directory(directory)
    return target


def discard(part: Path) -> None:
    """Remove a partial file and its sidecar if they exist. Raises DiskError."""
    with disk(part):
        part.unlink(missing_ok=True)
        part.with_name(part.name + ".tag").unlink(missing_ok=True)


def call(old: Path, new: Path) -> bool:
    """Give a file a second name, replacing nothing.

    Return False if another file has the name, or if the file does not exist. Raises DiskError.
    """
    with disk(new):
        try:
            os.link(old, new, follow_symlinks=False)
        except FileExistsError:
            return not new.is_symlink() and old.samefile(new)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _copied(old, new)
        _sync_directory(new.parent)
    return True


@contextmanager
def disk(path: Path, *, taken: type[OSError] | tuple[()] = ()) -> Iterator[None]:
    """Turn an OSError into a DiskError with a hint for the user; errors of type `passed_on` are raised as they are."""
    try:
        yield
    except taken:
        raise
    except OSError as error:
        hint = "Make room and run the command again." if error.errno in _FULL else "Check the disk and its permissions."
        raise DiskError(
            f"{path}: {error.strerror or error}.", hint=f"{hint} Nothing that is paid for is lost."
        ) from error


def is_full(error: DiskError) -> bool:
    """Return True if the disk or the quota is full."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL


def _opened(path: Path) -> int:
    """Open or create a regular private file; remove a link or a pipe in its place instead of following it."""
    for _ in range(3):
        try:
            file = os.open(path, _FLAGS, 0o600)
        except OSError as error:
            if error.errno not in {errno.ELOOP, errno.ENXIO}:
                raise
            path.unlink(missing_ok=True)
            continue
        status = os.fstat(file)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            return file
        os.close(file)
        path.unlink(missing_ok=True)
    raise OSError(errno.ELOOP, "somebody keeps putting links here")


def _copied(part: Path, target: Path) -> None:
    """Copy a file on a file system without hard links: reserve the name first, then replace it by the whole copy."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    draft = target.with_name(f".{target.name[:100]}.{os.getpid()}")
    try:
        with part.open("rb") as source, os.fdopen(os.open(draft, _FLAGS | os.O_EXCL, 0o600), "wb") as copy:
            shutil.copyfileobj(source, copy, _CHUNK)
            copy.flush()
            os.fsync(copy.fileno())
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
        raise


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
