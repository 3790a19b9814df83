"""Partial file of a download (`.part` with its sidecar `.part.tag`), and its publication under the final name.

Files are opened without following links, with mode 0600 in a directory of mode 0700. A hard link gives a file its final
name and replaces nothing, so that no file of the user is ever overwritten. The order is: fsync, name, row in the store.

Content that is no image, video or audio file goes into a quarantine directory, so that the user can see what a paid
link led to. It never has the name of an output. The number and the size of its files are limited, since the other side
chooses what it sends.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import deque
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING

from anyio import to_thread

from runner.errors import DiskError
from runner.files import NotRegularFileError, copy_file, open_file, sync_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


#: bytes that are read at once
_CHUNK = 1 << 20
#: buffers that the system accepts in one `writev` call
_MAX_WRITEV = 1024
#: umask, read once at import: reading it means setting it, which would affect other threads
_UMASK = os.umask(0o077)
os.umask(_UMASK)
#: bytes above which an ETag is not kept; a strong ETag is short
_TAG_LIMIT = 1024
#: bytes that the quarantine keeps of one file, enough to recognise it
MAX_QUARANTINED_BYTES = 256 << 10
#: maximum number of files in the quarantine
_MAX_QUARANTINED_FILES = 100
#: error numbers of a file system that has no hard links, and of a full disk or quota
_NO_LINK_ERRNOS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS})
_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})


class PartialFile:
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
        self._reset_tag: str | None = None

    def __repr__(self) -> str:
        return f"PartialFile({self.path.name}, {self.size} bytes)"

    @property
    def is_new(self) -> bool:
        """Return True if the directory exists and holds no file to resume; fast enough for the event loop."""
        return self._file is None and self.path.parent.is_dir() and not os.path.lexists(self.path)

    def resume(self) -> str:
        """Hash the existing bytes and return their strong ETag; without one, empty the file and return ""."""
        with disk_errors(self.path):
            file = self._open()
            self.size = os.fstat(file).st_size
        tag = self._read_tag()
        if not tag or not self.size:
            self.reset("")
            return ""
        with disk_errors(self.path):
            os.lseek(file, 0, os.SEEK_SET)
            while data := os.read(file, _CHUNK):
                self._hash.update(data)
        return tag

    def reset_on_write(self, tag: str) -> None:
        """Empty the file before the next write, without blocking.

        `tag` is the ETag for a later resume, or "" for none.
        """
        self._hash, self.size, self._reset_tag = hashlib.sha256(), 0, tag

    def reset(self, tag: str) -> None:
        """Empty the file now, with the ETag `tag` for a later resume or "" for none."""
        self.reset_on_write(tag)
        self.write(())

    def write(self, pieces: Sequence[bytes]) -> None:
        """Append the pieces and add them to the hash."""
        with disk_errors(self.path):
            file = self._open()
            if (tag := self._reset_tag) is not None:
                self.tag_path.unlink(missing_ok=True)
                os.ftruncate(file, 0)
                os.lseek(file, 0, os.SEEK_SET)
                if tag.startswith('"') and len(tag) < _TAG_LIMIT:
                    sidecar = _open_private(self.tag_path)
                    try:
                        os.write(sidecar, tag.encode("utf-8", "backslashreplace"))
                    finally:
                        os.close(sidecar)
                self._reset_tag = None
            _write_all(file, pieces)
        for piece in pieces:
            self._hash.update(piece)
            self.size += len(piece)

    def head(self, size: int) -> bytes:
        """Return the first bytes of the content that a resume keeps."""
        return b"" if self._file is None or self._reset_tag is not None else os.pread(self._file, size, 0)

    def sha256(self) -> str:
        """Return the hash in hexadecimal."""
        return self._hash.hexdigest()

    def sync(self) -> None:
        """Flush the file to the disk (fsync)."""
        with disk_errors(self.path):
            os.fsync(self._open())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> int:
        if self._file is None:
            # without parents: a job directory that was moved away must not be created again
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            if self.path.parent.is_symlink():
                raise OSError(errno.ELOOP, "the directory of unfinished downloads is a link")
            self._file = _open_private(self.path)
        return self._file

    def _read_tag(self) -> str:
        with suppress(OSError, UnicodeDecodeError):
            if stat.S_ISREG(self.tag_path.lstat().st_mode):
                tag = self.tag_path.read_bytes()[:_TAG_LIMIT].decode("ascii")
                return tag if tag.startswith('"') and tag.isprintable() else ""
        return ""


class Quarantine:
    """Quarantine directory of one job; a file has the name of its partial file, with the suffix `.bin`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __repr__(self) -> str:
        return f"Quarantine({self._directory})"

    async def keep(self, part: Path, pieces: Sequence[bytes]) -> str | None:
        """Keep the content and return its path relative to the job's directory.

        Return None if the content is empty or the quarantine is full. Raises DiskError.
        """
        return await to_thread.run_sync(self._write, self._path(part), pieces) if any(pieces) else None

    async def release(self, part: Path) -> None:
        """Remove the file that was kept for `part`, since the output arrived after all. Raises DiskError."""
        path = self._path(part)
        if path.exists():
            await to_thread.run_sync(discard, path)

    def _path(self, part: Path) -> Path:
        return self._directory / f"{part.stem}.bin"

    def _write(self, path: Path, pieces: Sequence[bytes]) -> str | None:
        if not path.exists() and self._directory.is_dir():
            known = sum(1 for _ in islice(self._directory.iterdir(), _MAX_QUARANTINED_FILES))
            if known >= _MAX_QUARANTINED_FILES:
                return None
        file = PartialFile(path)
        try:
            file.reset("")
            file.write([b"".join(pieces)[:MAX_QUARANTINED_BYTES]])
        finally:
            file.close()
        return "/".join(path.parts[-3:])


def publish(part: Path, directory: Path, name: str, extension: str) -> Path:
    """Give a partial file its final name and return the path.

    Raises FileExistsError if the name is taken, and keeps the partial file then. Raises DiskError.
    """
    target = directory / f"{name}.{extension}"
    with disk_errors(target, passed_on=FileExistsError):
        make_shard(target, directory)
        try:
            os.link(part, target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINK_ERRNOS:
                raise
            copy_file(part, target)
        with suppress(PermissionError, NotImplementedError):  # FAT and some network disks keep no permissions
            target.chmod(0o666 & ~_UMASK)  # the state is private, outputs are as public as their directory
        part.unlink()
        part.with_name(part.name + ".tag").unlink(missing_ok=True)
        sync_directory(target.parent)
    return target


def make_shard(target: Path, directory: Path) -> None:
    """Make the directory of an output, where it is to be in one of several in the job directory.

    The job directory itself is not made again where it was moved away. Raises OSError, also for a link.
    """
    shard = target.parent
    if shard == directory:
        return
    try:
        shard.mkdir()
    except FileExistsError:
        if shard.is_symlink() or not shard.is_dir():
            raise OSError(errno.ELOOP, "a directory of outputs is a link, or a file", str(shard)) from None
    else:
        sync_directory(directory)


def discard(part: Path) -> None:
    """Remove a partial file and its sidecar if they exist. Raises DiskError."""
    with disk_errors(part):
        part.unlink(missing_ok=True)
        part.with_name(part.name + ".tag").unlink(missing_ok=True)


def link_as(old: Path, new: Path, *, mode: int = 0o600) -> bool:
    """Give a file a second name, replacing nothing. Where there are no links, a copy has the permission bits `mode`.

    Return False if another file has the name, or if the file does not exist. Raises DiskError.
    """
    with disk_errors(new):
        try:
            os.link(old, new, follow_symlinks=False)
        except FileExistsError:
            return not new.is_symlink() and old.samefile(new)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINK_ERRNOS:
                raise
            copy_file(old, new, mode)
        sync_directory(new.parent)
    return True


@contextmanager
def disk_errors(path: Path, *, passed_on: type[OSError] | tuple[()] = ()) -> Iterator[None]:
    """Turn an OSError into a DiskError with a hint for the user; errors of type `passed_on` are raised as they are."""
    try:
        yield
    except passed_on:
        raise
    except OSError as error:
        hint = (
            "Make room and run the command again."
            if error.errno in _FULL_ERRNOS
            else "Check the disk and its permissions."
        )
        raise DiskError(
            f"{path}: {error.strerror or error}.",
            hint=f"{hint} What is paid for is fetched then, free of charge, while the provider keeps it.",
        ) from error


def is_disk_full(error: DiskError) -> bool:
    """Return True if the disk or the quota is full."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL_ERRNOS


def _write_all(file: int, pieces: Sequence[bytes]) -> None:
    """Write all pieces without joining them, in several calls if the system accepts fewer bytes at once."""
    remaining = deque(pieces)
    while remaining:
        written = os.writev(file, list(islice(remaining, _MAX_WRITEV)))
        while remaining and written >= len(remaining[0]):
            written -= len(remaining.popleft())
        if written:
            remaining[0] = remaining[0][written:]


def _open_private(path: Path) -> int:
    """Open or create a regular private file; remove a link or a pipe in its place instead of following it."""
    for _ in range(3):
        try:
            file = open_file(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            if error.errno not in {errno.ELOOP, errno.ENXIO} and not isinstance(error, NotRegularFileError):
                raise
        else:
            if os.fstat(file).st_nlink == 1:
                return file
            os.close(file)
        path.unlink(missing_ok=True)
    raise OSError(errno.ELOOP, "somebody keeps putting links here")
