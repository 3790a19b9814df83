"""Where what is no picture, film or sound is put aside, so that a person can see what a paid link led to (FO7).

Private (0600 in 0700), never under an output's name, never believed to be one; so many bytes of so many files and no
more, since the other side decides what it sends.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from anyio import to_thread

from runner.net.part import Part, discard

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: bytes that are kept of one file: enough to see what it is
MOST = 256 << 10
#: files that are kept
_FILES = 100


class Quarantine:
    """A directory of one job; a file is named after the part that it was fetched for, and ends in `.bin`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __repr__(self) -> str:
        return f"Quarantine({self._directory})"

    async def keep(self, part: Path, pieces: Sequence[bytes]) -> str | None:
        """Its name as a person finds it from the job's directory; None where it is empty or there are too many.

        Raises DiskError.
        """
        return await to_thread.run_sync(self._kept, self._path(part), pieces) if any(pieces) else None

    async def release(self, part: Path) -> None:
        """The real thing came after all: what was put aside for it is not needed any more; raises DiskError."""
        path = self._path(part)
        if path.exists():
            await to_thread.run_sync(discard, path)

    def _path(self, part: Path) -> Path:
        return self._directory / f"{part.stem}.bin"

    def _kept(self, path: Path, pieces: Sequence[bytes]) -> str | None:
        if not path.exists() and self._is_full():
            return None
        file = Part(path)
        try:
            file.restart("")
            file.write([b"".join(pieces)[:MOST]])
        finally:
            file.close()
        return "/".join(path.parts[-3:])

    def _is_full(self) -> bool:
        return self._directory.is_dir() and sum(1 for _ in islice(self._directory.iterdir(), _FILES)) >= _FILES
