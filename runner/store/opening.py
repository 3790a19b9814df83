"""How a job's database is opened: private, whole, up to date, in step with its journal, and with room in reserve."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING

import aiosqlite

from runner.errors import DiskError, StateError
from runner.store import recovery, sql
from runner.store.directories import make
from runner.store.questions import execute

if TYPE_CHECKING:
    from pathlib import Path

    from runner.store.journal import Line
    from runner.store.writer import Writer

_BALLAST = 512 * 1024
#: bytes up to which a database is checked whole at the start
_CHECKED = 64 * 2**20
#: what to do about a full disk
ROOM = "Make room, then run the same command again."
_MODES = {"wal": "pragma journal_mode = wal", "delete": "pragma journal_mode = delete"}


async def connect(path: Path) -> aiosqlite.Connection:
    """The database on a thread of its own."""
    return await aiosqlite.connect(path, isolation_level=None, cached_statements=256)


def prepare(path: Path) -> None:
    """The directory 0700 and the file 0600 before SQLite sees them."""
    directory = path.parent
    try:
        make(directory)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        raise DiskError(f"{directory}: {error.strerror}", hint="Mend the permissions, or choose --out.") from None
    if path.is_symlink() or not path.is_file():
        raise DiskError(f"{path} is not a file", hint="Move it away, or choose --out.")


def set_up(connection: sqlite3.Connection, *, log: bool = True) -> None:
    """A connection as the one writer has it, on a database that is up to date; `log`: with a write-ahead log (FD8)."""
    connection.row_factory = sqlite3.Row
    connection.execute("pragma busy_timeout = 30000")
    sql.guard(connection)
    sql.version(connection)
    wanted = "wal" if log else "delete"
    (mode,) = connection.execute(_MODES[wanted]).fetchone()
    if mode != wanted:
        raise StateError(f"the file system allows no {wanted} journal ({mode})", hint="Put the job on a local disk.")
    connection.execute("pragma synchronous = full")
    _check(connection)
    connection.execute("pragma foreign_keys = on")
    sql.migrate(connection)
    sql.check_schema(connection)


def _check(connection: sqlite3.Connection) -> None:
    """Damage is found before anything is believed; a very large database is checked by what is read of it."""
    (pages,) = connection.execute("pragma page_count").fetchone()
    (size,) = connection.execute("pragma page_size").fetchone()
    if pages * size <= _CHECKED:
        (verdict,) = connection.execute("pragma quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(str(verdict))


def open_journal(connection: sqlite3.Connection, writer: Writer, path: Path) -> None:
    """Merge what only the journal knows, and go on writing it."""
    writer.journal = recovery.open_journal(connection, path)


def begin(connection: sqlite3.Connection, notes: list[Line]) -> tuple[str, int]:
    """In a transaction: a new run begins; the job's identity and the run's epoch."""
    epoch, run = execute(connection, "raise_epoch").fetchone()
    uuid = execute(connection, "job").fetchone()["uuid"]
    notes.append({"t": "epoch", "uuid": uuid, "epoch": epoch, "run": run})
    return uuid, epoch


def ballast(directory: Path) -> Path:
    """Room that is given back when the disk is full, so that an id in hand can still be written."""
    path = directory / "ballast"
    try:
        if not path.exists() or path.stat().st_size < _BALLAST:
            with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o600), "wb") as file:
                file.write(bytes(_BALLAST))
                os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise DiskError(f"{path}: {error.strerror}", hint=ROOM) from None
    return path
