"""Power loss: a log of a process's file operations, and the files that a power cut would leave.

`record` runs in the process itself. `Disk` replays its log: a write counts when its file was synced after it, a name
when its directory was; of the rest any part may have reached the disk, in any order, torn at a sector.
"""

from __future__ import annotations

import os
import pickle
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults import sick_sqlite

if TYPE_CHECKING:
    from random import Random

_SECTOR = 512
#: files that SQLite creates again, or that are written in unrecorded ways and can be lost
_PASSING = (
    "-shm",
    "results.jsonl",
    "facts.json",
    "binding.json",
    "earlier.json",
    "checked.json",
    "results.index",
    "index.html",
    ".js",
    "ballast",
    "lock",
    "lock.holder",
    "token.json",
    ".budget",
)
#: what is written beside its place first, and may be left there
_BESIDE = re.compile(r"\.(.+)\.[0-9a-f]{8}")


def _is_passing(path: str) -> bool:
    name = Path(path).name
    beside = _BESIDE.fullmatch(name)
    return (beside[1] if beside else name).endswith((*_PASSING, "token"))


def record(log: str, root: str) -> None:
    """Log every operation on a file under `root`, by SQLite and by Python, until this process ends.

    One lock is held for an operation and its line in the log, and for the end of the process at a failpoint: a kill
    between the two would leave an operation of another thread on the disk that the log does not know.
    """
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    write, paths, whole = os.write, {}, threading.RLock()

    def note(*deed) -> None:
        write(out, pickle.dumps(deed))

    def handler(kind: str, path: str, where: int, data: bytes) -> None:
        note(kind, path, where, data)

    sick_sqlite.intercept(handler, whole)

    def watched(name, listener):
        deed = getattr(os, name)

        def doing(*args, **kwargs):
            with whole:
                value = deed(*args, **kwargs)
                listener(value, *args)
            return value

        setattr(os, name, doing)

    def opened(descriptor, path, *_) -> None:
        paths[descriptor] = os.fspath(path)
        if os.fspath(path).startswith(root):
            note("open", os.fspath(path))

    def of(descriptor, kind: str, where: int = 0, data: bytes = b"") -> None:
        path = paths.get(descriptor, "")
        if path.startswith(root):
            note(kind, path, where, data)

    watched("kill", lambda *_: None)
    watched("open", opened)
    watched("write", lambda size, at, data: of(at, "append", 0, bytes(data[:size])))
    watched("writev", lambda size, at, pieces: of(at, "append", 0, b"".join(pieces)[:size]))
    watched("ftruncate", lambda _, at, size: of(at, "truncate", size))
    watched("fsync", lambda _, at: of(at, "sync"))
    watched("fdatasync", lambda _, at: of(at, "sync"))
    watched("link", lambda _, old, new: note("link", os.fspath(old), os.fspath(new)))
    watched("unlink", lambda _, path, *__: note("unlink", os.fspath(path)))
    watched("rename", lambda _, old, new: note("rename", os.fspath(old), os.fspath(new)))
    watched("replace", lambda _, old, new: note("rename", os.fspath(old), os.fspath(new)))


@dataclass(eq=False)
class _Inode:
    """The bytes of a file on the disk, and the operations since."""

    kept: bytes = b""
    since: list[tuple[str, int, bytes]] = field(default_factory=list)

    @property
    def now(self) -> bytes:
        return _done(self.kept, self.since)

    def sync(self) -> None:
        self.kept, self.since = self.now, []

    def left(self, chance: Random | None) -> bytes:
        """Return the content after the cut: what was synced, and with `chance` any part of the rest."""
        if chance is None:
            return self.kept
        return _done(self.kept, [_torn(deed, chance) for deed in self.since if chance.random() < 0.5])


def _done(data: bytes, deeds: list[tuple[str, int, bytes]]) -> bytes:
    out = bytearray(data)
    for kind, where, more in deeds:
        if kind == "truncate":
            out[where:] = bytes(max(0, where - len(out)))
        else:
            out += bytes(max(0, where - len(out)))
            out[where : where + len(more)] = more
    return bytes(out)


def _torn(deed: tuple[str, int, bytes], chance: Random) -> tuple[str, int, bytes]:
    kind, where, data = deed
    return (kind, where, data[: _SECTOR * chance.randint(1, 1 + len(data) // _SECTOR)])


class Disk:
    """The files under a directory, as they are and as a power cut would leave them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names = {str(path): _Inode(path.read_bytes()) for path in root.rglob("*") if path.is_file()}
        self._kept = dict(self._names)

    def replay(self, log: Path) -> int:
        """Replay the log, check that it gives the files on the disk now, and return the number of operations."""
        count = 0
        with log.open("rb") as file:
            while file.peek(1):
                self._apply(*pickle.load(file))
                count += 1
        for path, inode in self._names.items():
            if not _is_passing(path):
                assert Path(path).read_bytes() == inode.now, f"{path} is written in a way that is not recorded"
        return count

    def cut(self, chance: Random | None = None) -> None:
        """Replace the files by those that a power cut would leave."""
        for path in self._root.rglob("*"):
            if path.is_file():
                path.unlink()
        for path in {*self._kept, *self._names}:
            inodes = [self._kept.get(path)] if chance is None else [self._kept.get(path), self._names.get(path)]
            inode = inodes[0] if chance is None else chance.choice(inodes)
            if inode is not None and not _is_passing(path):
                Path(path).write_bytes(inode.left(chance))

    def _apply(self, kind: str, path: str, *more) -> None:
        match kind, more:
            case "open", ():
                if not Path(path).is_dir():
                    self._names.setdefault(path, _Inode())
            case "link", (new,):
                self._names[new] = self._names[path]
            case "rename", (new,):
                self._names[new] = self._names.pop(path, _Inode())
            case "unlink", ():
                self._names.pop(path, None)
            case "delete", (synced, _):
                self._names.pop(path, None)
                if synced:
                    self._sync(str(Path(path).parent))
            case "sync", _:
                self._sync(path)
            case "append", (_, data):
                inode = self._names.setdefault(path, _Inode())
                inode.since.append(("write", len(inode.now), data))
            case _, (where, data):
                self._names.setdefault(path, _Inode()).since.append((kind, where, data))

    def _sync(self, path: str) -> None:
        inode = self._names.get(path)
        if inode is None:  # a directory: its names count from now on
            here = [name for name in {*self._names, *self._kept} if str(Path(name).parent) == path]
            for name in here:
                self._kept.pop(name, None)
            self._kept |= {name: self._names[name] for name in here if name in self._names}
            return
        inode.sync()
        if path.endswith("-wal"):  # SQLite syncs the directory too when it syncs a log for the first time
            self._kept[path] = inode
