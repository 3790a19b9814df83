"""A small database that the jobs of one account share; one transaction a call, in a thread."""

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
#: seconds that another process may have it
_PATIENCE = 30


class SharedFile:
    """One file; raises DiskError, Locked, StateError. `hint` says what to do about a damaged one."""

    def __init__(self, path: Path, schema: str, hint: str = "") -> None:
        self.path, self._schema, self._hint = path, schema, hint
        self._ready = False

    async def transact(self, work: Callable[[sqlite3.Connection], T], patience: float = _PATIENCE) -> T:
        """What `work` returns, after its changes are on disk; Locked where another has it for `patience` seconds."""
        return await anyio.to_thread.run_sync(self._transact, work, patience)

    async def prepare(self) -> None:
        """The file and its directory are there."""
        await anyio.to_thread.run_sync(self._prepare)

    def _transact(self, work: Callable[[sqlite3.Connection], T], patience: float) -> T:
        self._prepare()
        try:
            with closing(sqlite3.connect(self.path, timeout=patience, isolation_level=None)) as connection:
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
