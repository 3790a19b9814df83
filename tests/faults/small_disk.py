"""A disk that is really full: a tmpfs in a mount namespace, which a test can shrink to its content.

It needs no privilege where user namespaces are allowed, and no memory for unused space.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SPACE = ("unshare", "--map-root-user", "--mount")
#: far above the low-water mark
_PLENTY = 2**30


class SmallDisk:
    """A tmpfs that only `enter` sees under its own name. Other processes find its files under `seen`."""

    def __init__(self, at: Path, holder: subprocess.Popen) -> None:
        self._at, self._pid = at, str(holder.pid)
        self.seen = Path(f"/proc/{holder.pid}/root") / at.relative_to("/")

    def enter(self, cwd: Path) -> list[str]:
        """Return a command prefix that starts a program inside the mount namespace."""
        space = ["nsenter", "--preserve-credentials", "--user", "--mount", "--target", self._pid]
        return [*space, "sh", "-c", 'cd "$0" && exec "$@"', str(cwd)]

    def leave(self, space: int) -> None:
        """Resize the disk to its content plus `space` bytes."""
        while True:
            disk = os.statvfs(self.seen)
            used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
            if self._remount(f"size={used + space}"):  # refused where more has come meanwhile
                return

    def leave_no_names(self) -> None:
        """Leave no inode for another file, regardless of free space."""
        disk = os.statvfs(self.seen)
        assert self._remount(f"nr_inodes={disk.f_files - disk.f_ffree}")

    def write_protect(self) -> None:
        assert self._remount("ro")

    def _remount(self, option: str) -> bool:
        command = [*self.enter(Path("/")), "mount", "-o", f"remount,{option}", str(self._at)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0


@contextmanager
def small_disk(at: Path, size: int = _PLENTY) -> Iterator[SmallDisk]:
    """Mount a disk of this many bytes over a directory, for the duration of a block."""
    at.mkdir(parents=True, exist_ok=True)
    mount = f'mount -t tmpfs -o size={size} none "$0" && echo ready && exec cat'
    command = [*_SPACE, "sh", "-c", mount, str(at)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"ready\n"
        yield SmallDisk(at, holder)
        holder.stdin.close()


@cache
def refused() -> str:
    """Return why this machine cannot mount such a disk, or an empty text if it can."""
    if missing := [program for program in ("unshare", "nsenter", "mount") if shutil.which(program) is None]:
        return f"there is no {missing[0]}"
    command = [*_SPACE, "mount", "-t", "tmpfs", "none", "/mnt"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"no mount namespace here: {done.stderr.strip()}"
