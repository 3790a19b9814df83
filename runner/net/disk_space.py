"""Free disk space, and free names (inodes), for outputs that are paid for and not downloaded yet."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runner.errors import DiskError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: bytes that outputs must leave free, for the state, the journal and other programs
RESERVE = 64 << 20
#: files that must still fit beside the outputs: partial files, thumbnails, the state
_RESERVED_FILES = 100
#: assumed size of an output in bytes before any is known, and its weight in outputs
_FIRST_SIZE, _FIRST_WEIGHT = 4 << 20, 4
#: number of outputs after which the weight of all earlier ones is halved
_HALVE_AFTER = 256


def free_bytes(directory: Path) -> int | None:
    """Return the bytes that may still be written in a directory, or None if the file system does not report them.

    Raises DiskError.
    """
    try:
        stats = os.statvfs(directory)
    except OSError as error:
        raise DiskError(f"{directory}: {error.strerror}", hint="Put it back, then run the same command.") from None
    return stats.f_bavail * stats.f_frsize if stats.f_blocks else None


def free_files(directory: Path) -> int | None:
    """Return how many more files fit (inodes), or None if the file system makes them as they are needed.

    Raises DiskError.
    """
    try:
        stats = os.statvfs(directory)
    except OSError as error:
        raise DiskError(f"{directory}: {error.strerror}", hint="Put it back, then run the same command.") from None
    return stats.f_favail if stats.f_files else None


class FreeSpace:
    """Free space compared with the space that further outputs need, estimated from the sizes of earlier outputs."""

    def __init__(
        self,
        directory: Path,
        measure: Callable[[Path], int | None] = free_bytes,
        count_files: Callable[[Path], int | None] = free_files,
    ) -> None:
        self._directory, self._free_bytes, self._free_files = directory, measure, count_files
        self._bytes, self._count = float(_FIRST_SIZE * _FIRST_WEIGHT), float(_FIRST_WEIGHT)

    def __repr__(self) -> str:
        return f"FreeSpace({self.expected_size / 2**20:.3g} MB an output)"

    @property
    def expected_size(self) -> float:
        """Return the expected bytes of one output."""
        return self._bytes / self._count

    def record_output(self, size: int) -> None:
        """Record the size in bytes of a downloaded output."""
        if self._count > _HALVE_AFTER:
            self._bytes, self._count = self._bytes / 2, self._count / 2
        self._bytes, self._count = self._bytes + size, self._count + 1

    def has_space_for(self, outputs: int) -> bool:
        """Return True if so many more outputs fit and the reserve remains free."""
        available = self._free_bytes(self._directory)
        if available is None:  # a file system that reports no numbers
            return True
        return available >= outputs * self.expected_size + RESERVE and self._has_files_for(outputs)

    def _has_files_for(self, outputs: int) -> bool:
        files = self._free_files(self._directory)
        return files is None or files >= outputs + _RESERVED_FILES

    def shortage(self) -> str:
        """Return a message for the user about the lack of space."""
        if not self._has_files_for(1):
            left = self._free_files(self._directory) or 0
            what = f"the disk of {self._directory} takes only {left} more files (inodes), however large it is"
            return f"{what}: remove files there, then run the same command again"
        available = self._free_bytes(self._directory) or 0
        return f"{self._directory} has {available / 2**20:.0f} MB left: make room, then run the same command again"
