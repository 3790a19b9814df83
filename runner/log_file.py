"""Write log lines to a file that logrotate may move away at any time."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class LogFile:
    """Append-only file of lines, mode 0600, that is created again after it was moved away.

    It works with logrotate without `copytruncate`. Raises OSError if the path cannot be written or is no plain file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = self._opened()

    def __repr__(self) -> str:
        return f"LogFile({str(self._path)!r})"

    def write(self, line: str) -> None:
        """Append one line in a single write."""
        if self._moved():
            old, self._descriptor = self._descriptor, self._opened()
            os.close(old)
        os.write(self._descriptor, f"{line}\n".encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _moved(self) -> bool:
        try:
            on_disk = self._path.stat()
        except FileNotFoundError:
            return True
        opened = os.fstat(self._descriptor)
        return (on_disk.st_dev, on_disk.st_ino) != (opened.st_dev, opened.st_ino)

    def _opened(self) -> int:
        # O_NOFOLLOW: not through a link planted by someone else; O_NONBLOCK: do not wait for the reader of a pipe
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a plain file", str(self._path))
        return descriptor
