"""Files that all jobs of one account share under RUNNER_HOME: the live token and small databases.

The databases hold claims on remote ids, the register of jobs and the uploaded images.
"""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager, closing, suppress
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread
import filelock
import orjson

from runner.errors import ConfigError, StateError
from runner.files import atomic_write, create_file, make_account_directory, open_to_read
from runner.store.database import to_runner_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from runner.errors import RunnerError


T = TypeVar("T")

#: seconds to wait for another process that holds the token lock while it fetches a new token
_TOKEN_LOCK_TIMEOUT = 120.0
#: bytes of the token file that are read at most
_MAX_TOKEN_BYTES = 64 * 1024
#: seconds to wait for another process that holds a database
_DATABASE_TIMEOUT = 30


class TokenFile:
    """A token and its expiry time in a file of mode 0600, with a lock file beside it.

    Times are seconds since the epoch.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / "token.json"
        self._lock = filelock.FileLock(
            directory / "token.lock", timeout=_TOKEN_LOCK_TIMEOUT, mode=0o600, thread_local=False
        )

    async def read(self) -> tuple[str, float] | None:
        """Return the stored token and its expiry time, or None if there is no readable one."""
        return await anyio.to_thread.run_sync(self._read)

    async def write(self, value: str, expires: float) -> None:
        """Replace the stored token.

        Raises OSError.
        """
        await anyio.to_thread.run_sync(self._write, value, expires)

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        """Hold the account's token lock for the length of the block.

        One process holds it at a time. The kernel frees it when its holder dies.
        Raises ConfigError if another process holds it for too long, or if the directory cannot be used.
        """
        try:
            make_account_directory(self._directory)
            await anyio.to_thread.run_sync(self._lock.acquire, abandon_on_cancel=False)
        except filelock.Timeout:
            raise ConfigError(
                f"{self._directory}: another process holds the token", hint="End it, and try again."
            ) from None
        except OSError as error:
            raise ConfigError(
                f"{self._directory}: {error.strerror}", hint="Set RUNNER_HOME to a directory of yours."
            ) from None
        try:
            yield
        finally:
            self._lock.release()

    def _read(self) -> tuple[str, float] | None:
        try:
            with open_to_read(self._path) as file:
                stored = orjson.loads(file.read(_MAX_TOKEN_BYTES))
            value, expires = stored["value"], stored["expires"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return (value, float(expires)) if isinstance(value, str) and isinstance(expires, int | float) else None

    def _write(self, value: str, expires: float) -> None:
        with atomic_write(self._path, 0o600) as file:
            file.write(orjson.dumps({"value": value, "expires": expires}))


class SharedDatabase:
    """A SQLite file that many processes write; each call runs one transaction in a thread.

    `hint` tells the user what to do with a damaged file. Methods raise DiskError, JobLockedError and StateError.
    """

    def __init__(self, path: Path, schema: str, hint: str = "") -> None:
        self.path, self._schema, self._hint = path, schema, hint
        self._ready = False

    async def transact(self, work: Callable[[sqlite3.Connection], T], wait: float = _DATABASE_TIMEOUT) -> T:
        """Run `work` in a transaction and return its result once its changes are on disk.

        Raises JobLockedError if another process holds the file for `wait` seconds.
        """
        return await anyio.to_thread.run_sync(self._transact, work, wait)

    def transact_here(self, work: Callable[[sqlite3.Connection], T], wait: float = _DATABASE_TIMEOUT) -> T:
        """Do what `transact` does in the calling thread, which must not be the event loop's."""
        return self._transact(work, wait)

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
            raise self._to_runner_error(error) from None

    def _prepare(self) -> None:
        if self._ready:
            return
        try:
            make_account_directory(self.path.parent)
            with suppress(FileExistsError):
                create_file(self.path).close()
            with closing(sqlite3.connect(self.path, timeout=_DATABASE_TIMEOUT)) as connection:
                connection.executescript(self._schema)
        except OSError as error:
            raise to_runner_error(sqlite3.OperationalError(f"unable to open: {error}"), str(self.path)) from None
        except sqlite3.Error as error:
            raise self._to_runner_error(error) from None
        self._ready = True

    def _to_runner_error(self, error: sqlite3.Error) -> RunnerError:
        if self._hint and not isinstance(error, sqlite3.OperationalError):
            return StateError(f"{self.path}: {error}", hint=self._hint)
        return to_runner_error(error, str(self.path))
