"""Lock of a job directory: one process runs a job at a time.

The kernel frees the lock when its holder dies, so there are no stale locks.
"""

from __future__ import annotations

import contextlib
import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import filelock

from runner.errors import DiskError, JobLockedError
from runner.files import create_file, make_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: seconds between two questions whether to wait on
_SLICE = 0.5


@contextmanager
def job_lock(directory: Path, *, wait: float = 0.0, is_cancelled: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Hold the job's lock for the length of the block.

    Raises JobLockedError if another process still holds it after `wait` seconds, or when
    `is_cancelled()` is true, which is asked twice a second. Raises DiskError if the directory
    cannot be used.
    """
    holder = directory / "lock.holder"
    try:
        make_directory(directory)
        lock = filelock.FileLock(directory / "lock", mode=0o600)
        while True:
            try:
                lock.acquire(timeout=min(wait, _SLICE))
                break
            except filelock.Timeout:
                wait -= _SLICE
                if wait <= 0 or is_cancelled():
                    raise
    except filelock.Timeout:
        raise JobLockedError(
            f"this job is being run by {_read_holder(holder)}", hint="Wait for it, or use --wait-lock 10m."
        ) from None
    except OSError as error:
        raise DiskError(f"{directory}: {error.strerror}", hint="Mend the permissions, or choose --out.") from None
    try:
        with contextlib.suppress(OSError):  # the note is for users only: the kernel's lock is what counts
            holder.unlink(missing_ok=True)  # never write through a link that someone planted
            with create_file(holder) as file:
                file.write(f"{socket.gethostname()} process {os.getpid()}\n".encode())
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def is_run_active(directory: Path) -> bool:
    """Return whether a process of this machine runs the job, according to the note that it left.

    The lock itself is not tried, so that no run is disturbed.
    """
    host, _, process = _read_holder(directory / "lock.holder").partition(" process ")
    if host != socket.gethostname() or not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # alive, and another user's
        return True
    return True


def _read_holder(holder: Path) -> str:
    with contextlib.suppress(OSError):
        return holder.read_text(encoding="utf-8").strip() or "another process"
    return "another process"
