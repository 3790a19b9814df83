"""Check that the file system under a job directory supports what a job needs.

Files must be created, synced, renamed and removed, and locks must be reliable. This is tried before the first request.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from runner.errors import DiskError
from runner.store.directories import make

_MOUNTS = Path("/proc/self/mountinfo")
#: kinds of file systems on which SQLite's write-ahead log or a kernel lock is unreliable
_REMOTE = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "fuse.sshfs",
    "fuse.rclone",
    "fuse.s3fs",
    "glusterfs",
}


def check(directory: Path, *, remote: bool = False, mounts: Path = _MOUNTS) -> None:
    """Make the directory and check that it supports create, fsync, rename and remove.

    `allow_remote` accepts a network file system. Its locks are trusted then, its shared memory is not (see
    `is_remote`). Raises DiskError with the reason.
    """
    try:
        make(directory, mode=0o777)
        _try(directory / f".try-{secrets.token_hex(4)}")
    except OSError as error:
        raise DiskError(
            f"{directory}: {error.strerror}", hint="Mend the permissions or make room, or choose --out."
        ) from None
    kind = file_system(directory, mounts)
    if kind in _REMOTE and not remote:
        raise DiskError(
            f"{directory} is on a network file system ({kind})",
            hint="Choose --out on a disk of this machine; or, if no other one works there, set RUNNER_NETWORK_DISK=1.",
        )


def is_remote(directory: Path, *, mounts: Path = _MOUNTS) -> bool:
    """Return whether the directory is on a network file system, where files cannot serve as shared memory."""
    return file_system(directory, mounts) in _REMOTE


def _try(path: Path) -> None:
    renamed = path.with_name(f"{path.name}-2")
    try:
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        path.rename(renamed)
    finally:
        path.unlink(missing_ok=True)
        renamed.unlink(missing_ok=True)


def file_system(directory: Path, mounts: Path = _MOUNTS) -> str:
    """Return the kind of file system under a directory by its Linux name, or an empty string if unknown."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    found = [(len(point), kind) for line in lines for point, kind in [_mount(line)] if _below(directory, point)]
    return max(found, default=(0, ""))[1]


def _mount(line: str) -> tuple[str, str]:
    """Return mount point and kind from one line of mountinfo, whose format is in proc(5)."""
    before, _, after = line.partition(" - ")
    fields, kinds = before.split(), after.split()
    return (fields[4].replace("\\040", " ") if len(fields) > 4 else "", kinds[0] if kinds else "")  # noqa: PLR2004


def _below(directory: Path, point: str) -> bool:
    return bool(point) and directory.resolve().is_relative_to(point)
