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
#: pieces that the system takes in one call
_PIECES = 1024
#: asked once: the only way to ask is to set it, which other threads would notice
_UMASK = os.umask(0o077)
os.umask(_UMASK)
#: a strong ETag is short; what is longer is not kept
_TAG_LIMIT = 1024
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Part:
    """The bytes that are here, and their hash; what touches the disk blocks, so call it in a thread.

    Nothing is made before the first bytes are written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tag_path = path.with_name(path.name + ".tag")
        self.size = 0
        self._file: int | None = None
        self._hash = hashlib.sha256()
        #: the tag to begin anew with, before the next bytes
        self._anew: str | None = None

    def __repr__(self) -> str:
        return f"Part({self.path.name}, {self.size} bytes)"

    @property
    def is_new(self) -> bool:
        """Whether there is nothing to resume, and a place for it; two quick looks that block nobody."""
        return self._file is None and self.path.parent.is_dir() and not os.path.lexists(self.path)

    def resume(self) -> str:
        """The strong ETag that the bytes here belong to, hashed again; empty after starting from nothing."""
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
        """The next bytes are the first; `tag` is what a later resume will ask with, empty for none. Does not block."""
        self._hash, self.size, self._anew = hashlib.sha256(), 0, tag

    def restart(self, tag: str) -> None:
        """The same, done at once."""
        self.anew(tag)
        self.write(())

    def write(self, pieces: Sequence[bytes]) -> None:
        """Write and hash in one go."""
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
        """The first bytes that a resume keeps."""
        return b"" if self._file is None or self._anew is not None else os.pread(self._file, size, 0)

    def sha256(self) -> str:
        return self._hash.hexdigest()

    def sync(self) -> None:
        """On the disk, not only in its cache."""
        with disk(self.path):
            os.fsync(self._opened())

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _opened(self) -> int:
        if self._file is None:
            # never with its parents: a job directory that was moved away must not be made anew
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
    """Without joining them first; where the disk takes less at once, the rest follows."""
    left = deque(pieces)
    while left:
        written = os.writev(file, list(islice(left, _PIECES)))
        while left and written >= len(left[0]):
            written -= len(left.popleft())
        if written:
            left[0] = left[0][written:]


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


def discard(part: Path) -> None:
    """Remove a part that is not needed any more, if there is one."""
    with disk(part):
        part.unlink(missing_ok=True)
        part.with_name(part.name + ".tag").unlink(missing_ok=True)


def call(old: Path, new: Path) -> bool:
    """A second name for a file, replacing nothing; False where the name is taken by another, or the file is gone."""
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


def is_full(error: DiskError) -> bool:
    """Whether there is no room, rather than something wrong with the disk."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL


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
