"""Check that the file system under a job directory supports what a job needs.

Files must be created, synced, renamed and removed, and locks must be reliable. This is tried before the first request.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from runner.errors import DiskError
from runner.files import create_file, make_directory, sync_file

_MOUNT_TABLE = Path("/proc/self/mountinfo")
#: field of a line of that table with the mount point
_MOUNT_POINT = 4
#: kinds of file systems on which SQLite's write-ahead log or a kernel lock is unreliable
_REMOTE_KINDS = {
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

#: kinds of file systems that may give a file another inode at the next mount
_CHANGING_INODES = {
    "vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuse", "fuseblk", "virtiofs", "9p", "cifs", "smb3", "smbfs", "vboxsf",
    "overlay", "aufs",
}  # fmt: skip


def changes_inodes(kind: str) -> bool:
    """Return whether a kind of file system may give a file another inode at the next mount."""
    return kind in _CHANGING_INODES or kind.startswith("fuse.")


def check(directory: Path, *, allow_remote: bool = False, mounts: Path = _MOUNT_TABLE) -> None:
    """Make the directory and check that it supports create, fsync, rename and remove.

    `allow_remote` accepts a network file system. Its locks are trusted then, its shared memory is not (see
    `is_remote`). Raises DiskError with the reason.
    """
    path = directory / f".try-{secrets.token_hex(4)}"
    renamed = path.with_name(f"{path.name}-2")
    try:
        make_directory(directory, mode=0o777)
        try:
            with create_file(path) as file:
                file.write(bytes(4096))
                sync_file(file)
            path.rename(renamed)
        finally:
            path.unlink(missing_ok=True)
            renamed.unlink(missing_ok=True)
    except OSError as error:
        raise DiskError(
            f"{directory}: {error.strerror}", hint="Mend the permissions or make room, or choose --out."
        ) from None
    kind = filesystem_kind(directory, mounts)
    if kind in _REMOTE_KINDS and not allow_remote:
        raise DiskError(
            f"{directory} is on a network file system ({kind})",
            hint="Choose --out on a disk of this machine; or, if no other one works there, set RUNNER_NETWORK_DISK=1.",
        )


def is_remote(directory: Path, *, mounts: Path = _MOUNT_TABLE) -> bool:
    """Return whether the directory is on a network file system, where files cannot serve as shared memory."""
    return filesystem_kind(directory, mounts) in _REMOTE_KINDS


def filesystem_kind(directory: Path, mounts: Path = _MOUNT_TABLE) -> str:
    """Return the kind of file system under a directory by its Linux name, or an empty string if unknown.

    `mounts` is in the format of /proc/self/mountinfo, see proc(5).
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    resolved, innermost = directory.resolve(), (0, "")
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        point = fields[_MOUNT_POINT].replace("\\040", " ") if len(fields) > _MOUNT_POINT else ""
        if point and resolved.is_relative_to(point):
            innermost = max(innermost, (len(point), kinds[0] if kinds else ""))
    return innermost[1]
