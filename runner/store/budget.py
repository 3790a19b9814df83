"""Bytes that all processes of an account hold in common: its budget of one endpoint (docs/decisions/0014).

1. A turn is a lock on the file, never waited for: who finds it taken comes again. The kernel frees what a dead process
   held.
2. A change is written beside the state before it, with a number and a checksum. One that was torn counts for nothing.
3. Each process has a seat, a locked file with a number: a seat that can be locked is of a process that is gone.

Nothing is synced, for the bytes speak of this boot; what outlives it is told by `old`, and may be lost with the power.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from typing import TYPE_CHECKING

from runner.store.directories import make, make_account

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: processes of one account, and the size of one of the two copies
MOST_SEATS = 256
_ROOM = 1 << 17
#: number, length and checksum of the bytes, and the boot that they are of
_HEAD = struct.Struct("<QII40s")


class Budget:
    """One endpoint's budget as one process sees it; raises OSError where the directory cannot be used.

    `boot` tells one start of the machine from another.
    """

    def __init__(self, directory: Path, name: str, boot: str) -> None:
        self._boot = boot.encode()[:40].ljust(40)
        self._stem = directory / name
        make_account(directory.parent)  # or it would have the umask's mode (FD9)
        make(directory)
        self._number = -1
        self._file = _opened(directory / f"{name}.budget")
        try:
            self.seat, self._seat_file = self._seated()
        except OSError:
            os.close(self._file)
            raise

    def __repr__(self) -> str:
        return f"Budget({self._stem}, seat {self.seat})"

    def close(self) -> None:
        """Leave the seat."""
        os.close(self._seat_file)
        os.close(self._file)

    def change(self, work: Callable[[bytes | None, bool], bytes | None]) -> bool:
        """Take a turn: `work` gets the bytes and says what they are from now on; False: another process is at it.

        It gets None where nobody changed them since our last turn, and gives None to leave them. The second argument
        says that they are of an earlier boot.
        """
        if not _locked(self._file):
            return False
        try:
            number, data, old = self._read()
            fresh = work(None if number == self._number else data, old)
            if fresh is not None:
                number += 1
                self._write(number, fresh)
            self._number = number
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        return True

    def forget(self) -> None:
        """Let the next turn have the bytes, whoever wrote them."""
        self._number = -1

    def is_taken(self, seat: int) -> bool:
        """Whether the process of that seat still lives."""
        if seat == self.seat:
            return True
        try:
            file = os.open(self._seat_path(seat), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not _locked(file)
        finally:
            os.close(file)

    def _read(self) -> tuple[int, bytes, bool]:
        """The newest whole copy: its number, its bytes, and whether it is of an earlier boot."""
        heads = [_HEAD.unpack(os.pread(self._file, _HEAD.size, at).ljust(_HEAD.size, b"\0")) for at in (0, _ROOM)]
        for at in sorted((0, 1), key=lambda copy: -heads[copy][0]):
            number, length, check, boot = heads[at]
            if number == self._number > 0:
                return number, b"", boot != self._boot
            data = os.pread(self._file, min(length, _ROOM), at * _ROOM + _HEAD.size)
            if number and zlib.crc32(data) == check:
                return number, data, boot != self._boot
        return 0, b"", False

    def _write(self, number: int, data: bytes) -> None:
        if len(data) > _ROOM - _HEAD.size:
            raise OSError(f"a budget of {len(data)} bytes does not fit")
        head = _HEAD.pack(number, len(data), zlib.crc32(data), self._boot)
        os.pwrite(self._file, head + data, number % 2 * _ROOM)

    def _seated(self) -> tuple[int, int]:
        for seat in range(MOST_SEATS):
            file = _opened(self._seat_path(seat))
            if _locked(file):
                return seat, file
            os.close(file)
        raise OSError(f"{MOST_SEATS} processes share it already")

    def _seat_path(self, seat: int) -> Path:
        return self._stem.with_name(f"{self._stem.name}.seat-{seat}")


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
