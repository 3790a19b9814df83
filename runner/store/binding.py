"""Binding of a job's state to the files and the machine that it lies on, by which a copy is recognised.

Nothing in a copied file says that it is a copy: bytes, name and times are the original's. What no copy carries is what
the file system gave the original when it was made, which stays through a rename and a new boot:

    inode       number of the file, not used where a mount gives new ones
    generation  a number beside it that differs when the inode is used again; on Linux' own disks
    born        time at which the file was made, where there is no generation

Two files are the same if they agree in all of these that both have. The numbers of the disk do not decide: a boot may
give other ones. They only say whether a file that differs lies on another disk.

Not recognised: a copy over the existing file (`cp`, `rsync --inplace`), and a whole disk that was put back.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import struct
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from runner.errors import StateError
from runner.files import atomic_write, open_to_read
from runner.store import filesystem

if TYPE_CHECKING:
    from collections.abc import Mapping

#: file in the state directory
_NAME = "binding.json"
_MAX_BYTES = 1 << 20
#: _IOR('v', 1, long) of linux/fs.h, as most processors write it
_GET_GENERATION = 0x8000_7601 | struct.calcsize("l") << 16
#: processors on which the number of that call is another one
_OTHER_NUMBERS = ("ppc", "mips", "sparc", "alpha", "parisc")
#: kinds that end with the machine or its container
_FLEETING = {"tmpfs", "ramfs", "overlay", "aufs"}
_MACHINE_ID = Path("/etc/machine-id")
#: of struct statx: bit and offset of the time of birth; flag that takes a descriptor for the path
_BIRTH, _BIRTH_OFFSET, _EMPTY_PATH = 0x800, 0x50, 0x1000


@dataclass(frozen=True, slots=True)
class FileMark:
    """What a file system gave a file when it was made, and the disk that it lies on. None: it does not tell."""

    inode: int | None
    generation: int | None
    #: nanoseconds since the epoch
    born: int | None
    device: int
    #: number of the file system; 0: it has none
    filesystem: int

    @property
    def is_lasting(self) -> bool:
        """Return True if a copy of the file can be told from it."""
        return any(value is not None for value in (self.inode, self.generation, self.born))

    def is_same(self, other: FileMark) -> bool:
        """Return True if both may be marks of the same file."""
        ours, theirs = (self.inode, self.generation, self.born), (other.inode, other.generation, other.born)
        pairs = [(one, two) for one, two in zip(ours, theirs, strict=True) if one is not None and two is not None]
        return all(one == two for one, two in pairs) if pairs else not self.is_on_other_disk(other)

    def is_on_other_disk(self, other: FileMark) -> bool:
        """Return True if the files certainly lie on two file systems."""
        return (
            self.device != other.device
            and 0 not in {self.filesystem, other.filesystem}
            and (self.filesystem != other.filesystem)
        )


@dataclass(frozen=True, slots=True)
class Binding:
    """Where a job's state lay when its latest run began."""

    #: resolved path of the job directory
    directory: str
    #: seconds since the epoch
    at: float
    #: hash of the machine's id; None: it has none that lasts, or the disk is one of several machines
    machine: str | None
    journal: FileMark | None
    database: FileMark | None
    #: register of each account, by the name of its directory in RUNNER_HOME; None: there is none
    registers: Mapping[str, FileMark | None] = field(default_factory=dict)
    #: path of the lease that was written; empty: none
    lease: str = ""

    def differences(self, seen: Binding) -> list[str]:
        """Return what is not as it was: of `state`, `register` and `machine`. `seen` is the binding of now.

        A state is the same if its journal or its database is: `recover` writes one of them anew, and whether the two
        belong together is found out when they are opened.
        """
        found = []
        if _is_other(self.journal, seen.journal) and _is_other(self.database, seen.database):
            found.append("state")
        if any(_is_other(mark, seen.registers.get(name, mark)) for name, mark in self.registers.items()):
            found.append("register")
        if None not in {self.machine, seen.machine} and self.machine != seen.machine:
            found.append("machine")
        return found


def mark_file(path: Path) -> FileMark | None:
    """Return the mark of a file, or None if it cannot be opened."""
    try:
        file = open_to_read(path)
    except OSError:
        return None
    with file:
        status, kind = os.fstat(file.fileno()), filesystem.filesystem_kind(path)
        generation = None if filesystem.changes_inodes(kind) else _generation(file.fileno())
        return FileMark(
            inode=None if filesystem.changes_inodes(kind) else status.st_ino,
            generation=generation,
            born=_birth(file.fileno()) if generation is None else None,
            device=status.st_dev,
            filesystem=os.fstatvfs(file.fileno()).f_fsid,
        )


def machine_hash(path: Path = _MACHINE_ID) -> str | None:
    """Return a hash of the machine's id, or None if it has none that outlives a container or a boot."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    if len(text) != 32 or is_fleeting(path):  # noqa: PLR2004 - as machine-id(5) says; "uninitialized" is no id
        return None
    return hashlib.sha256(f"runner {text}".encode()).hexdigest()[:16]


def is_fleeting(path: Path) -> bool:
    """Return True if a path lies on a file system that ends with the machine or its container."""
    return filesystem.filesystem_kind(path) in _FLEETING


def observe(
    state: Path, directory: str, registers: Mapping[str, Path], now: float, *, machine: str | None = None
) -> Binding:
    """Return the binding of a state as it is now.

    `state` is the state directory and `directory` the job's resolved path; `registers` are files by account. A job on a
    network disk is not bound to a machine, since several may reach it.
    """
    return Binding(
        directory,
        now,
        None if filesystem.is_remote(state) else machine,
        mark_file(state / "journal.jsonl"),
        mark_file(state / "state.db"),
        {name: mark_file(path) for name, path in registers.items()},
    )


def read_binding(state: Path) -> Binding | None:
    """Return the binding of the latest run, or None if there is none, as in jobs of older versions.

    Raises StateError if the file is damaged.
    """
    path = state / _NAME
    try:
        with open_to_read(path) as file:
            return _decode(orjson.loads(file.read(_MAX_BYTES)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateError(
            f"{path} cannot be read, so nobody knows where this state comes from: {error}",
            hint="`runner adopt-state` with the same manifest shows what there is, and writes it anew.",
        ) from None


def write_binding(state: Path, binding: Binding) -> None:
    """Write the binding. Raises OSError."""
    with atomic_write(state / _NAME, 0o600) as file:
        file.write(orjson.dumps(asdict(binding), option=orjson.OPT_APPEND_NEWLINE))


def _is_other(known: FileMark | None, seen: FileMark | None) -> bool:
    """Return True if a file that was there is another one now, or is gone."""
    return known is not None and (seen is None or not known.is_same(seen))


def _decode(values: Any) -> Binding:
    registers = {str(name): _mark(each) for name, each in values["registers"].items()}
    machine = values["machine"]
    if not (machine is None or isinstance(machine, str)):
        raise TypeError("machine is no text")
    return Binding(
        str(values["directory"]),
        float(values["at"]),
        machine,
        _mark(values["journal"]),
        _mark(values["database"]),
        registers,
        str(values.get("lease", "")),
    )


def _mark(values: Any) -> FileMark | None:
    if values is None:
        return None
    numbers = {each.name: values[each.name] for each in fields(FileMark)}
    for name, value in numbers.items():
        if not isinstance(value, int) and (value is not None or name in {"device", "filesystem"}):
            raise TypeError(f"{name} is no number")
    return FileMark(**numbers)


def _generation(descriptor: int) -> int | None:
    """Return the generation of a file's inode, or None if the file system has none."""
    if platform.system() != "Linux" or platform.machine().startswith(_OTHER_NUMBERS):
        return None
    try:
        (number,) = struct.unpack_from("=I", fcntl.ioctl(descriptor, _GET_GENERATION, bytes(8)))
    except OSError:
        return None
    return number or None


def _birth(descriptor: int) -> int | None:
    """Return the time at which a file was made, in nanoseconds since the epoch, or None if that is not known."""
    if (seconds := getattr(os.fstat(descriptor), "st_birthtime", None)) is not None:
        return int(seconds * 1_000_000_000)
    with suppress(ImportError, AttributeError, OSError):
        import ctypes  # noqa: PLC0415 - Python has no other way to statx before 3.15, and few file systems need it

        buffer = ctypes.create_string_buffer(256)
        if ctypes.CDLL(None).statx(descriptor, b"", _EMPTY_PATH, _BIRTH, buffer) == 0:
            (mask,) = struct.unpack_from("=I", buffer, 0)
            whole, part = struct.unpack_from("=qI", buffer, _BIRTH_OFFSET)
            return whole * 1_000_000_000 + part if mask & _BIRTH else None
    return None
