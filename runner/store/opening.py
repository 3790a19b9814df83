"""Opening of a job's database: private, undamaged, up to date, in step with its journal, with space in reserve."""

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

#: size of the reserve file in bytes
_BALLAST = 512 * 1024
#: largest database in bytes that is checked completely at the start
_CHECKED = 64 * 2**20
#: hint for a full disk
ROOM = "Make room, then run the same command again."
_MODES = {"wal": "pragma journal_mode = wal", "delete": "pragma journal_mode = delete"}


async def connect(path: Path) -> aiosqlite.Connection:
    """Open the database on a thread of its own."""
    return await aiosqlite.connect(path, isolation_level=None, cached_statements=256)


def prepare(path: Path) -> None:
    """Make the directory (mode 0700) and an empty file (0600), so that SQLite finds them private.

    Raises DiskError.
    """
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
    """Set up the writing connection, and bring the database up to date.

    Without `write_ahead_log` a rollback journal is used, as a network file system requires. Raises StateError and
    sqlite3.Error.
    """
    connection.row_factory = sqlite3.Row
    connection.execute("pragma busy_timeout = 30000")
    sql.guard(connection)
    sql.version(connection)
    expected = "wal" if log else "delete"
    (mode,) = connection.execute(_MODES[expected]).fetchone()
    if mode != expected:
        raise StateError(f"the file system allows no {expected} journal ({mode})", hint="Put the job on a local disk.")
    connection.execute("pragma synchronous = full")
    _check(connection)
    connection.execute("pragma foreign_keys = on")
    sql.migrate(connection)
    sql.check_schema(connection)


def _check(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError if the database is damaged; a very large one is only checked as it is read."""
    (pages,) = connection.execute("pragma page_count").fetchone()
    (size,) = connection.execute("pragma page_size").fetchone()
    if pages * size <= _CHECKED:
        (result,) = connection.execute("pragma quick_check(1)").fetchone()
        if result != "ok":
            raise sqlite3.DatabaseError(str(result))


def open_journal(connection: sqlite3.Connection, writer: Writer, path: Path) -> None:
    """Merge what only the journal holds, and append to it from now on."""
    writer.journal = recovery.open_journal(connection, path)


def begin(connection: sqlite3.Connection, journal_lines: list[Line]) -> tuple[str, int]:
    """Begin a new run and return the job's identity and the run's epoch.

    Must be called in a transaction.
    """
    epoch, run = execute(connection, "raise_epoch").fetchone()
    uuid = execute(connection, "job").fetchone()["uuid"]
    journal_lines.append({"t": "epoch", "uuid": uuid, "epoch": epoch, "run": run})
    return uuid, epoch


def ballast(directory: Path) -> Path:
    """Make the reserve file that is deleted when the disk is full, so that a remote id can still be written.

    Raises DiskError.
    """
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
