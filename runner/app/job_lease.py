"""The lease of a job during a run: compared before anything is bought, renewed while it goes on.

`RUNNER_LEASE=file:///mnt/nas/leases` names a directory on another disk. Each job has a file there. A run whose state
lacks what its lease records is not the latest one; and a lease that another run has written meanwhile shows that two
copies of the state are at work.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import unquote, urlsplit

import anyio
import anyio.to_thread

from runner.errors import ConfigError, RunnerError, StateError
from runner.store.lease import Lease, LeaseFile
from runner.text import format_duration

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from runner.settings import Settings
    from runner.store.store import Store
    from runner.tasks.events import BlockKind


T = TypeVar("T")

#: what happens if the lease cannot be reached: a warning, or nothing is bought
LeaseMode = Literal["optional", "required"]
#: seconds between two renewals
_INTERVAL = 10.0
#: seconds that a network disk has for one call
_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Fence:
    """Why a run may not buy; empty: it may."""

    why: str = ""
    kind: BlockKind = "state"


class JobLease:
    """Lease of one job."""

    def __init__(self, file: LeaseFile, store: Store, directory: str, now: Callable[[], float]) -> None:
        self._file, self._store, self._directory, self._now = file, store, directory, now
        #: as this run has written it
        self._written: Lease | None = None

    def __repr__(self) -> str:
        return f"JobLease({str(self._file.path)!r})"

    @property
    def place(self) -> str:
        """Return the path of the lease."""
        return str(self._file.path)

    async def compare(self, *, expected: bool, mode: LeaseMode, on_warning: Callable[[str], None]) -> Fence:
        """Return whether the lease allows this state to buy. `expected` is that of `find_later_run`."""
        try:
            later = await self.find_later_run(expected=expected)
        except OSError as error:
            return self._fence_if_required(error, mode, on_warning)
        return Fence(f"{later}: nothing is bought" if later else "")

    @asynccontextmanager
    async def held(
        self, *, mode: LeaseMode, raise_fence: Callable[[Fence], None], on_warning: Callable[[str], None]
    ) -> AsyncIterator[None]:
        """Take the lease before anything is bought, and renew it during the block and at its end.

        Calls `raise_fence` if another run takes it, or if it cannot be reached although it is required.
        """
        warned = fenced = False

        async def renew(*, take: bool = False) -> None:
            nonlocal warned, fenced
            fence = Fence()
            try:
                taken = await self.renew(take=take)
                fence = Fence(f"{taken}: nothing more is bought" if taken else "")
                warned = False
            except OSError as error:
                fence = self._fence_if_required(error, mode, lambda text: None if warned else on_warning(text))
                warned = True
            except RunnerError:
                return  # the state cannot be read, which ends the run by itself
            if fence.why:
                fenced = True
                raise_fence(fence)

        async def renew_repeatedly() -> None:
            while not fenced:
                await renew()
                await asyncio.sleep(_INTERVAL)

        await renew(take=True)
        renewing = asyncio.create_task(renew_repeatedly())  # at once: of two runs that took it together one sees it
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])
            if not fenced:
                await renew()

    def _fence_if_required(self, error: OSError, mode: LeaseMode, on_warning: Callable[[str], None]) -> Fence:
        """Return a fence where the lease is required, and warn where it is not."""
        why = f"the lease {self.place} cannot be reached ({error.strerror or error})"
        if mode == "required":
            return Fence(f"{why}: nothing is bought without it", "configuration")
        on_warning(f"{why}: whether a later run of this job was elsewhere is not known")
        return Fence()

    async def find_later_run(self, *, expected: bool) -> str:
        """Return which later run the lease records, if the state lacks it.

        `expected` says that an earlier run has written a lease here, so that none cannot be. Raises OSError if the
        lease cannot be reached.
        """
        try:
            lease = await _call(self._file.read)
        except StateError as damaged:
            return f"{damaged.message}, so nobody knows which run was the latest"
        if lease is None:
            if expected:
                raise OSError(f"{self.place} is gone, which an earlier run has written")
            return ""
        has_mark = await self._store.journal_mark(lease.end) == lease.mark
        if not has_mark and (rebuilt := await self._store.rebuilt_journal()) is not None:
            has_mark = rebuilt.replaces(self._store.uuid, lease.mark, lease.epoch)
        if has_mark and lease.epoch < self._store.epoch:
            return ""
        return f"the lease {self.place} knows a later run than this state: {self._describe(lease)}"

    async def renew(self, *, take: bool = False) -> str:
        """Write how far the job has come. Return who has written the lease meanwhile, if it was not this run.

        `take` overwrites the lease of another run, as at the start. Raises OSError if the lease cannot be reached.
        """
        mark = await self._store.journal_mark()
        if mark is None:
            return ""
        if not take:
            try:
                lease = await _call(self._file.read)
            except StateError:
                lease = None
            if lease is not None and self._written is not None and lease != self._written:
                return f"another run of this job has taken the lease {self.place}: {self._describe(lease)}"
        if take or self._written is None or self._written.mark != mark:
            holder = f"{socket.gethostname()}:{self._directory}"
            fresh = Lease(self._store.uuid, self._store.epoch, mark.end, mark.digest, holder, self._now())
            await _call(lambda: self._file.write(fresh))
            self._written = fresh
        return ""

    def _describe(self, lease: Lease) -> str:
        ago = format_duration(max(0.0, self._now() - lease.at))
        return f"run {lease.epoch} of {lease.holder}, {ago} ago"


def open_lease(settings: Settings, store: Store, directory: str, now: Callable[[], float]) -> JobLease | None:
    """Return the lease of a job, or None without RUNNER_LEASE. Raises ConfigError if that is no address of a directory.

    `directory` is the job's resolved path.
    """
    text = settings.text("RUNNER_LEASE")
    if text is None:
        return None
    return JobLease(LeaseFile(lease_directory(text), store.uuid), store, directory, now)


def lease_directory(text: str) -> Path:
    """Return the directory that RUNNER_LEASE names. Raises ConfigError."""
    parts = urlsplit(text)
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
        raise ConfigError(
            f"RUNNER_LEASE: {text!r} is no address of a directory",
            hint="RUNNER_LEASE=file:///mnt/nas/leases, a directory on a disk that is not backed up with the job.",
        )
    return Path(unquote(parts.path))


async def _call(work: Callable[[], T]) -> T:
    """Call a function that reads or writes a disk which may not answer. Raises OSError if it does not in time."""
    with anyio.move_on_after(_TIMEOUT):
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
    raise OSError(f"it did not answer within {_TIMEOUT:.0f} s")
