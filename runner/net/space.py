"""Free disk space for outputs that are paid for and not downloaded yet."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runner.errors import DiskError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: bytes that outputs must leave free, for the state, the journal and other programs
RESERVE = 64 << 20
#: assumed size of an output in bytes before any is known, and its weight in outputs
_GUESS, _WEIGHT = 4 << 20, 4
#: number of outputs after which the weight of all earlier ones is halved
_FADING = 256


def free(directory: Path) -> int | None:
    """Return the bytes that may still be written in a directory, or None if the file system does not report them.

    Raises DiskError.
    """
    try:
        stats = os.statvfs(directory)
    except OSError as error:
        raise DiskError(f"{directory}: {error.strerror}", hint="Put it back, then run the same command.") from None
    return stats.f_bavail * stats.f_frsize if stats.f_blocks else None


class Space:
    """Free space compared with the space that further outputs need, estimated from the sizes of earlier outputs."""

    def __init__(self, directory: Path, free: Callable[[Path], int | None] = free) -> None:
        self._directory, self._free = directory, free
        self._bytes, self._count = float(_GUESS * _WEIGHT), float(_WEIGHT)

    def __repr__(self) -> str:
        return f"FreeSpace({self.expected / 2**20:.3g} MB an output)"

    @property
    def expected(self) -> float:
        """Return the expected bytes of one output."""
        return self._bytes / self._count

    def saved(self, size: int) -> None:
        """Record the size in bytes of a downloaded output."""
        if self._count > _FADING:
            self._bytes, self._count = self._bytes / 2, self._count / 2
        self._bytes, self._count = self._bytes + size, self._count + 1

    def has_room(self, outputs: int) -> bool:
        """Return True if so many more outputs fit and the reserve remains free."""
        available = self._free(self._directory)
        return available is None or available >= outputs * self.expected + RESERVE

    def shortage(self) -> str:
        """Return a message for the user about the lack of space."""
        available = self._free(self._directory) or 0
        return f"{self._directory} has {available / 2**20:.0f} MB left: make room, then run the same command again"
