"""A file on its way: `.part` with its sidecar `.part.tag`, and how it gets its name.

Opened without following links, 0600 in a directory of 0700; published by a link that replaces nothing, so that no
file of anybody's is ever overwritten (attacks.md X10). fsync before the name, the name before the row.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from runner.errors import DiskError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CHUNK = 1 << 20
#: asked once: the only way to ask is to set it, which other threads would notice
_UMASK = os.umask(0o077)
os.umask(_UMASK)
#: a strong ETag is short; what is longer is not kept
_TAG_LIMIT = 1024
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Part:
    """The bytes that are here, and their hash; every method blocks, so call it in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tag_path = path.with_name(path.name + ".tag")
        with disk(path):
            # never with its parents: a job directory that was moved away must not be made anew
            path.parent.mkdir(mode=0o700, exist_ok=True)
            self._file = _opened(path)
            self.size = os.fstat(self._file).st_size
        self._hash = hashlib.sha256()

    def __repr__(self) -> str:
        return f"Part({self.path.name}, {self.size} bytes)"

    def resume(self) -> str:
        """The strong ETag that the bytes here belong to, hashed again; empty after starting from nothing."""
        tag = self._tag()
        if not tag or not self.size:
            self.restart("")
            return ""
        with disk(self.path):
            os.lseek(self._file, 0, os.SEEK_SET)
            while data := os.read(self._file, _CHUNK):
                self._hash.update(data)
        return tag

    def restart(self, tag: str) -> None:
        """From the first byte; `tag` is what a later resume will ask with, empty for none."""
        with disk(self.path):
            self.tag_path.unlink(missing_ok=True)
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
            if tag.startswith('"') and len(tag) < _TAG_LIMIT:
                side = _opened(self.tag_path)
                try:
                    os.write(side, tag.encode("utf-8", "backslashreplace"))
                finally:
                    os.close(side)
        self._hash, self.size = hashlib.sha256(), 0

    def append(self, data: bytes | bytearray) -> None:
        """Write and hash in one go."""
        with disk(self.path), memoryview(data) as view:
            written = 0
            while written < len(view):
                written += os.write(self._file, view[written:])
        self._hash.update(data)
        self.size += len(data)

    def head(self, size: int) -> bytes:
        """The first bytes."""
        return os.pread(self._file, size, 0)

    def sha256(self) -> str:
        return self._hash.hexdigest()

    def sync(self) -> None:
        """On the disk, not only in its cache."""
        with disk(self.path):
            os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)

    def _tag(self) -> str:
        with suppress(OSError, UnicodeDecodeError):
            if stat.S_ISREG(self.tag_path.lstat().st_mode):
                tag = self.tag_path.read_bytes()[:_TAG_LIMIT].decode("ascii")
                return tag if tag.startswith('"') and tag.isprintable() else ""
        return ""


def publish(part: Path, directory: Path, name: str, extension: str) -> Path:
    """Give the part its name, replacing nothing; FileExistsError when the name is taken, the part stays then."""
    target = directory / f"{name}.{extension}"
    with disk(target, taken=FileExistsError):
        try:
            os.link(part, target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _copied(part, target)
        target.chmod(0o666 & ~_UMASK)  # the state is private, the pictures are as public as the directory
        part.unlink()
        part.with_name(part.name + ".tag").unlink(missing_ok=True)
        _sync_directory(directory)
    return target


@contextmanager
def disk(path: Path, *, taken: type[OSError] | tuple[()] = ()) -> Iterator[None]:
    """An OSError of the disk as DiskError, with what to do next; `taken` is left to the caller."""
    try:
        yield
    except taken:
        raise
    except OSError as error:
        hint = "Make room and run the command again." if error.errno in _FULL else "Check the disk and its permissions."
        raise DiskError(
            f"{path}: {error.strerror or error}.", hint=f"{hint} Nothing that is paid for is lost."
        ) from error


def _opened(path: Path) -> int:
    """A plain file of ours; a link or a pipe that was planted there is removed, never followed."""
    for _ in range(3):
        try:
            opened = os.open(path, _FLAGS, 0o600)
        except OSError as error:
            if error.errno not in {errno.ELOOP, errno.ENXIO}:
                raise
            path.unlink(missing_ok=True)
            continue
        found = os.fstat(opened)
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            return opened
        os.close(opened)
        path.unlink(missing_ok=True)
    raise OSError(errno.ELOOP, "somebody keeps putting links here")


def _copied(part: Path, target: Path) -> None:
    """Where there are no links: take the name first, so that nobody else can, then put the whole file there."""
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
