"""One runner per job directory: a kernel lock that dies with its holder, so there are no stale locks to guess about."""

from __future__ import annotations

import contextlib
import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import filelock

from runner.errors import DiskError, Locked
from runner.store.directories import make

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def job_lock(directory: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Hold the job for the length of the block; raises Locked after `wait` seconds, DiskError."""
    holder = directory / "lock.holder"
    try:
        make(directory)
        lock = filelock.FileLock(directory / "lock", timeout=wait, mode=0o600)
        lock.acquire()
    except filelock.Timeout:
        raise Locked(f"this job is being run by {_held_by(holder)}", hint="Wait for it, or use --wait-lock.") from None
    except OSError as error:
        raise DiskError(f"{directory}: {error.strerror}", hint="Mend the permissions, or choose --out.") from None
    try:
        with contextlib.suppress(OSError):  # a courtesy: the kernel's lock is what counts
            _sign(holder)
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _sign(holder: Path) -> None:
    """For people only; never through a link that someone planted."""
    holder.unlink(missing_ok=True)
    with os.fdopen(os.open(holder, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600), "w") as file:
        file.write(f"{socket.gethostname()} process {os.getpid()}\n")


def runs(directory: Path) -> bool:
    """Whether a run of this machine holds the job, by what it signed; asks no lock, so that it disturbs no run."""
    host, _, process = _held_by(directory / "lock.holder").partition(" process ")
    if host != socket.gethostname() or not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, and alive
        return True
    return True


def _held_by(holder: Path) -> str:
    with contextlib.suppress(OSError):
        return holder.read_text(encoding="utf-8").strip() or "another process"
    return "another process"
