"""Room on the disk for what is paid and not here yet."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runner.errors import DiskError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: bytes that are left alone: state, journal and whoever else needs the disk
RESERVE = 64 << 20
#: the first guess of an output's size, and how many outputs it counts for
_GUESS, _WEIGHT = 4 << 20, 4
#: outputs after which those before count half
_FADING = 256


def free(directory: Path) -> int | None:
    """Bytes that we may still write there; None where the file system does not say. Raises DiskError."""
    try:
        told = os.statvfs(directory)
    except OSError as error:
        raise DiskError(f"{directory}: {error.strerror}", hint="Put it back, then run the same command.") from None
    return told.f_bavail * told.f_frsize if told.f_blocks else None


class Space:
    """What outputs need, learned from those that came; asked of the disk at the moment it matters."""

    def __init__(self, directory: Path, free: Callable[[Path], int | None] = free) -> None:
        self._directory, self._free = directory, free
        self._bytes, self._count = float(_GUESS * _WEIGHT), float(_WEIGHT)

    def __repr__(self) -> str:
        return f"Space({self.expected / 2**20:.3g} MB an output)"

    @property
    def expected(self) -> float:
        """Bytes of one output."""
        return self._bytes / self._count

    def saved(self, size: int) -> None:
        """An output of so many bytes came home."""
        if self._count > _FADING:
            self._bytes, self._count = self._bytes / 2, self._count / 2
        self._bytes, self._count = self._bytes + size, self._count + 1

    def has_room(self, outputs: int) -> bool:
        """Whether so many more will fit, with the reserve left over."""
        left = self._free(self._directory)
        return left is None or left >= outputs * self.expected + RESERVE

    def shortage(self) -> str:
        """What stands in the way, for a person."""
        left = self._free(self._directory) or 0
        return f"{self._directory} has {left / 2**20:.0f} MB left: make room, then run the same command again"
