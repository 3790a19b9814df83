"""Quarantine for downloads that are not an image, video or audio file, so that the user can inspect paid content.

The files are private (mode 0600 in a directory of 0700) and never have an output's name. The number of files and the
bytes of each are limited, since the server decides what it sends.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from anyio import to_thread

from runner.net.part import Part, discard

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: bytes that are kept of one file, enough to recognise it
MOST = 256 << 10
#: maximum number of files
_FILES = 100


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
        return await to_thread.run_sync(self._kept, self._path(part), pieces) if any(pieces) else None

    async def release(self, part: Path) -> None:
        """Remove the file that was kept for `part`, since the output arrived after all. Raises DiskError."""
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
