"""What a job needs of the disk, tried before the first request: a file that can be made, synced, linked and removed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from runner.errors import DiskError
from runner.store.directories import make

_MOUNTS = Path("/proc/self/mountinfo")
#: file systems on which SQLite's write-ahead log or a kernel lock cannot be trusted
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
    """Make the directory and try it; raises DiskError that says what stands in the way.

    `remote` is a person's word that a network file system will do: its locks are trusted then, shared memory is not
    (see `is_remote`).
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
    """Whether the directory is on another machine, so that no memory can be shared through its files."""
    return file_system(directory, mounts) in _REMOTE


def _try(path: Path) -> None:
    other = path.with_name(f"{path.name}-2")
    try:
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        path.rename(other)
    finally:
        path.unlink(missing_ok=True)
        other.unlink(missing_ok=True)


def file_system(directory: Path, mounts: Path = _MOUNTS) -> str:
    """The kind of file system a directory is on, as Linux names it; empty where nobody says."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    found = [(len(point), kind) for line in lines for point, kind in [_mount(line)] if _below(directory, point)]
    return max(found, default=(0, ""))[1]


def _mount(line: str) -> tuple[str, str]:
    """Mount point and kind of one line of mountinfo (proc(5))."""
    before, _, after = line.partition(" - ")
    fields, kinds = before.split(), after.split()
    return (fields[4].replace("\\040", " ") if len(fields) > 4 else "", kinds[0] if kinds else "")  # noqa: PLR2004


def _below(directory: Path, point: str) -> bool:
    return bool(point) and directory.resolve().is_relative_to(point)
