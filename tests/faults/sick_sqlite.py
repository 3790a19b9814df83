"""Fault injection below SQLite: a hook sees each write, truncate, sync and delete of its default VFS.

For a process of its own, since it changes SQLite for all of it. `ctypes` finds the very library that `sqlite3` uses;
where that cannot be found (it may be linked in, with its names hidden), `available()` says so.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import sqlite3
from contextlib import nullcontext
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    #: what happens (`write`, `truncate`, `sync`, `delete`), to which file, where (offset, size, or whether a `delete`
    #: syncs the directory too), and with which bytes; an error code of SQLite's instead of the operation, or None
    Handler = Callable[[str, str, int, bytes], int | None]

#: sqlite3.h
FULL, IOERR_WRITE, IOERR_FSYNC = 13, 10 | 3 << 8, 10 | 4 << 8
_OK = 0

#: the name as a bare address: SQLite keeps it, and finds more behind it
_OPEN = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_DELETE = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)
_WRITE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_TRUNCATE = CFUNCTYPE(c_int, c_void_p, c_int64)
_SYNC = CFUNCTYPE(c_int, c_void_p, c_int)


class _Methods(Structure):
    """`sqlite3_io_methods`, version 3."""

    _fields_ = (
        ("version", c_int),
        ("close", c_void_p),
        ("read", c_void_p),
        ("write", _WRITE),
        ("truncate", _TRUNCATE),
        ("sync", _SYNC),
        ("rest", c_void_p * 13),
    )


class _File(Structure):
    """`sqlite3_file`. The fields after its methods belong to the VFS."""

    _fields_ = (("methods", POINTER(_Methods)),)


class _Vfs(Structure):
    """`sqlite3_vfs`, up to its second method."""

    _fields_ = (
        ("version", c_int),
        ("size", c_int),
        ("longest", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", _OPEN),
        ("delete", _DELETE),
    )


def _library() -> ctypes.CDLL | None:
    """Return the SQLite library that `sqlite3` uses, and not another copy."""
    for name in (_sqlite3.__file__, "libsqlite3.so.0", None):
        try:
            library = ctypes.CDLL(name)
            library.sqlite3_libversion.restype = c_char_p
            if library.sqlite3_libversion().decode() == sqlite3.sqlite_version:
                library.sqlite3_vfs_find.restype = POINTER(_Vfs)
                return library
        except (OSError, AttributeError):
            continue
    return None


def available() -> bool:
    """Return whether the hook can be installed in this Python's SQLite."""
    return _library() is not None


#: what C points at must outlive every connection
_KEPT: list[object] = []


def intercept(handler: Handler, lock: AbstractContextManager | None = None) -> None:
    """Call `handler` for every write, truncate, sync and delete of every file that SQLite opens from now on.

    `lock` is held for a call of the handler and its operation, so that whoever takes it too never sees only one of
    them.
    """
    whole = lock or nullcontext()
    library = _library()
    if library is None:
        raise RuntimeError("this Python's SQLite cannot be found by name")
    vfs = library.sqlite3_vfs_find(None).contents
    # the fields themselves would follow what is written into them
    there, gone = _OPEN(ctypes.cast(vfs.open, c_void_p).value), _DELETE(ctypes.cast(vfs.delete, c_void_p).value)
    names: dict[int, str] = {}

    def handled(kind: str, name: str, where: int, data: bytes, operation: Callable[[], int]) -> int:
        with whole:
            return handler(kind, name, where, data) or operation()

    def opened(own: int, name: int | None, file: int, flags: int, out: int) -> int:
        code = there(own, name, file, flags, out)
        if code == _OK and name:
            names[file] = ctypes.string_at(name).decode()
            _wrap(_File.from_address(file), names, handled)
        return code

    vfs.open = _keep(_OPEN(opened))
    vfs.delete = _keep(
        _DELETE(
            lambda own, name, synced: handled("delete", name.decode(), synced, b"", lambda: gone(own, name, synced))
        )
    )


def _keep(thing):
    _KEPT.append(thing)
    return thing


def _wrap(file: _File, names: dict[int, str], handled: Callable[..., int]) -> None:
    """Give one open file its own methods."""
    before = file.methods.contents
    write, truncate, sync = before.write, before.truncate, before.sync
    mine = _Methods.from_buffer_copy(before)

    def writing(at: int, data: int, size: int, offset: int) -> int:
        copy = ctypes.string_at(data, size)
        return handled("write", names[at], offset, copy, lambda: write(at, data, size, offset))

    mine.write = _keep(_WRITE(writing))
    mine.truncate = _keep(
        _TRUNCATE(lambda at, size: handled("truncate", names[at], size, b"", lambda: truncate(at, size)))
    )
    mine.sync = _keep(_SYNC(lambda at, flags: handled("sync", names[at], 0, b"", lambda: sync(at, flags))))
    file.methods = ctypes.pointer(_keep(mine))
