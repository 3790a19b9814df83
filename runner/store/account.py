"""The live token that all jobs of one account share under RUNNER_HOME."""

from __future__ import annotations

import os
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import filelock
import orjson

from runner.errors import ConfigError
from runner.store.directories import make_account

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

#: seconds to wait for another process that holds the lock while it fetches a new token
_PATIENCE = 120.0
#: bytes of the token file that are read at most
_LARGEST = 64 * 1024


class TokenFile:
    """A token and its expiry time in a file of mode 0600, with a lock file beside it.

    Times are seconds since the epoch.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / "token.json"
        self._lock = filelock.FileLock(directory / "token.lock", timeout=_PATIENCE, mode=0o600, thread_local=False)

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
            make_account(self._directory)
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
            with os.fdopen(os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                stored = orjson.loads(file.read(_LARGEST))
            value, expires = stored["value"], stored["expires"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return (value, float(expires)) if isinstance(value, str) and isinstance(expires, int | float) else None

    def _write(self, value: str, expires: float) -> None:
        fresh = self._path.with_name(f".token.{secrets.token_hex(4)}")
        descriptor = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(orjson.dumps({"value": value, "expires": expires}))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
