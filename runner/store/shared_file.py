"""Small SQLite databases that the jobs of one account share."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING, TypeVar

import anyio.to_thread

from runner.errors import StateError
from runner.store.directories import make_account
from runner.store.sql import explained

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runner.errors import RunnerError

T = TypeVar("T")
#: seconds to wait for another process that holds the file
_PATIENCE = 30


class SharedFile:
    """A SQLite file that many processes write; each call runs one transaction in a thread.

    `hint` tells the user what to do with a damaged file. Methods raise DiskError, JobLockedError and StateError.
    """

    def __init__(self, path: Path, schema: str, hint: str = "") -> None:
        self.path, self._schema, self._hint = path, schema, hint
        self._ready = False

    async def transact(self, work: Callable[[sqlite3.Connection], T], wait: float = _PATIENCE) -> T:
        """Run `work` in a transaction and return its result once its changes are on disk.

        Raises JobLockedError if another process holds the file for `wait` seconds.
        """
        return await anyio.to_thread.run_sync(self._transact, work, wait)

    async def prepare(self) -> None:
        """Make the file and its directory if they are missing."""
        await anyio.to_thread.run_sync(self._prepare)

    def _transact(self, work: Callable[[sqlite3.Connection], T], wait: float) -> T:
        self._prepare()
        try:
            with closing(sqlite3.connect(self.path, timeout=wait, isolation_level=None)) as connection:
                connection.execute("pragma synchronous = full")
                connection.execute("begin immediate")
                value = work(connection)
                connection.execute("commit")
                return value
        except sqlite3.Error as error:
            raise self._explained(error) from None

    def _prepare(self) -> None:
        if self._ready:
            return
        try:
            make_account(self.path.parent)
            with suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
            with closing(sqlite3.connect(self.path, timeout=_PATIENCE)) as connection:
                connection.executescript(self._schema)
        except OSError as error:
            raise explained(sqlite3.OperationalError(f"unable to open: {error}"), str(self.path)) from None
        except sqlite3.Error as error:
            raise self._explained(error) from None
        self._ready = True

    def _explained(self, error: sqlite3.Error) -> RunnerError:
        if self._hint and not isinstance(error, sqlite3.OperationalError):
            return StateError(f"{self.path}: {error}", hint=self._hint)
        return explained(error, str(self.path))
