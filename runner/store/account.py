"""What the jobs of one account share under RUNNER_HOME: today its one live token."""

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

#: seconds that another process may hold the token while it fetches a new one
_PATIENCE = 120.0
_LARGEST = 64 * 1024


class TokenFile:
    """A token and its end (seconds since the epoch) in a file of mode 0600, with a lock beside it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / "token.json"
        self._lock = filelock.FileLock(directory / "token.lock", timeout=_PATIENCE, mode=0o600, thread_local=False)

    async def read(self) -> tuple[str, float] | None:
        """The stored token, or None; what cannot be read counts as none."""
        return await anyio.to_thread.run_sync(self._read)

    async def write(self, value: str, expires: float) -> None:
        """Put a token in the place of the old one."""
        await anyio.to_thread.run_sync(self._write, value, expires)

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        """Held by one process at a time; the kernel frees it when its holder dies."""
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
