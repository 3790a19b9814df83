"""Rate-limit state of one endpoint, shared by all processes of an account through a file.

1. The file is locked for every change, and no process waits for the lock. A process that finds it taken tries again
   later. The kernel frees the lock of a process that dies.
2. A change is written beside the state before it, with a version number and a checksum. A torn write is ignored.
3. Each process holds a process slot: a locked file with a number. If another process can lock the file of a slot, the
   slot's owner is gone.

The file is never synced, since most of its content is valid for the current boot only. State of an earlier boot is
recognised by its boot id, and may be lost in a power failure.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from typing import TYPE_CHECKING

from runner.files import make_account_directory, make_directory, open_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: maximum number of processes that may share one endpoint
MAX_PROCESSES = 256
#: ends of the names of the state's file and of a process slot's file, which every version shares
_STATE_SUFFIX, _SLOT_SUFFIX = ".budget", ".seat-"
#: size in bytes of each of the two copies of the state
_COPY_BYTES = 1 << 17
#: version number, length and checksum of the state, and the boot it was written in
_HEADER = struct.Struct("<QII40s")


class SharedRateState:
    """Shared rate-limit state of one endpoint, as seen by one process.

    `boot` identifies the current start of the machine. Raises OSError if the directory cannot be used or if all process
    slots are taken.
    """

    def __init__(self, directory: Path, name: str, boot: str) -> None:
        self._boot = boot.encode()[:40].ljust(40)
        self._stem = directory / name
        # first, since parents that `make_directory` adds have the umask's mode
        make_account_directory(directory.parent)
        make_directory(directory)
        self._version = -1
        self._file = open_file(directory / f"{name}{_STATE_SUFFIX}", os.O_RDWR | os.O_CREAT)
        try:
            self.process_slot, self._slot_file = self._acquire_slot()
        except OSError:
            os.close(self._file)
            raise

    def __repr__(self) -> str:
        return f"SharedRateState({self._stem}, process slot {self.process_slot})"

    def close(self) -> None:
        """Release the process slot and close the file."""
        os.close(self._slot_file)
        os.close(self._file)

    def change(self, work: Callable[[bytes | None, bool], bytes | None]) -> bool:
        """Lock the state and replace it by the return value of `work`.

        Return False, without a call of `work`, if another process holds the lock. `work` receives the state, or None if
        no other process has changed it since the last call, and whether it was written in an earlier boot. If `work`
        returns None, the state is left as it is. Raises OSError.
        """
        if not _try_lock(self._file):
            return False
        try:
            number, data, outdated = self._read()
            fresh = work(None if number == self._version else data, outdated)
            if fresh is not None:
                number += 1
                self._write(number, fresh)
            self._version = number
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        return True

    def forget(self) -> None:
        """Pass the state to the next change even if this process wrote it last."""
        self._version = -1

    def is_taken(self, slot: int) -> bool:
        """Return whether the process that holds the slot is alive."""
        if slot == self.process_slot:
            return True
        try:
            file = open_file(self._slot_path(slot), os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            return not _try_lock(file)
        finally:
            os.close(file)

    def _read(self) -> tuple[int, bytes, bool]:
        """Return the version and the bytes of the newest complete copy, and whether it was written in an earlier boot.

        The bytes are empty if this process wrote that version or has read it already.
        """
        headers = [
            _HEADER.unpack(os.pread(self._file, _HEADER.size, offset).ljust(_HEADER.size, b"\0"))
            for offset in (0, _COPY_BYTES)
        ]
        for copy in sorted((0, 1), key=lambda index: -headers[index][0]):
            number, length, checksum, boot = headers[copy]
            if number == self._version > 0:
                return number, b"", boot != self._boot
            data = os.pread(self._file, min(length, _COPY_BYTES), copy * _COPY_BYTES + _HEADER.size)
            if number and zlib.crc32(data) == checksum:
                return number, data, boot != self._boot
        return 0, b"", False

    def _write(self, version: int, data: bytes) -> None:
        if len(data) > _COPY_BYTES - _HEADER.size:
            raise OSError(f"a budget of {len(data)} bytes does not fit")
        header = _HEADER.pack(version, len(data), zlib.crc32(data), self._boot)
        os.pwrite(self._file, header + data, version % 2 * _COPY_BYTES)

    def _acquire_slot(self) -> tuple[int, int]:
        for slot in range(MAX_PROCESSES):
            file = open_file(self._slot_path(slot), os.O_RDWR | os.O_CREAT)
            if _try_lock(file):
                return slot, file
            os.close(file)
        raise OSError(f"{MAX_PROCESSES} processes share it already")

    def _slot_path(self, slot: int) -> Path:
        return self._stem.with_name(f"{self._stem.name}{_SLOT_SUFFIX}{slot}")


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
