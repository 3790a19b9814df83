"""A file for log lines that logrotate may move away at any time."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class LogFile:
    """A file that lines are added to, mode 0600; when it was moved away, the next line begins a new one.

    Made for logrotate without `copytruncate`. Raises OSError where it cannot be written or is no plain file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = self._opened()

    def __repr__(self) -> str:
        return f"LogFile({str(self._path)!r})"

    def write(self, line: str) -> None:
        """Add one line, whole."""
        if self._moved():
            old, self._descriptor = self._descriptor, self._opened()
            os.close(old)
        os.write(self._descriptor, f"{line}\n".encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Nothing more comes."""
        os.close(self._descriptor)

    def _moved(self) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        here = os.fstat(self._descriptor)
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

    def _opened(self) -> int:
        # never through a link that someone planted, and never waiting for the reader of a pipe
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a plain file", str(self._path))
        return descriptor
