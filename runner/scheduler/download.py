"""The download stage: a name exists only with complete, checked bytes, and an existing file is never overwritten."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from runner.errors import DiskError
from runner.net.downloader import TOO_MANY_REQUESTS, DeadLink, DownloadedFile, RetryLater
from runner.net.partial_file import discard, is_disk_full, publish
from runner.tasks.events import LinkExpired, RetryableFailure, Saved
from runner.tasks.models import NO_ERROR, State, TaskError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from runner.net.downloader import Downloader
    from runner.scheduler.session import ProviderSession
    from runner.scheduler.settlement import Settlement
    from runner.tasks.events import Event
    from runner.tasks.models import Output, Task

#: failures in a row after which a link counts as dead, so that a poll fetches a fresh one
_STALE = 2
#: reasons for which a file may come later, since its host did not serve it
_AWAY = frozenset({"network", "timeout", "http", "too_slow"})
#: names that are tried before something is wrong with the directory
_NAMES = 1000
#: seconds until a download that was claimed may be claimed again
_LEASE = 60.0


class DownloadStage:
    """Downloads the outputs of one provider's tasks into the job directory.

    `concurrency` is the number of downloads at once. `offload` runs a blocking function off the event loop.
    """

    state = State.READY

    def __init__(
        self,
        session: ProviderSession,
        settlement: Settlement,
        downloader: Downloader,
        directory: Path,
        *,
        concurrency: int,
        offload: Callable[..., Awaitable[Any]],
    ) -> None:
        self._session, self._settlement, self._downloader = session, settlement, downloader
        self._capacity, self._store, self._directory = session.capacity, settlement.store, directory
        self.concurrency, self._offload = concurrency, offload
        self._capacity.backlog.workers = concurrency
        self._parts = directory / ".runner" / "parts"

    async def claim(self, batches: int, held: set[int]) -> list[Sequence[Task]]:
        """Claim due tasks, each as a batch of its own, while the disk has space."""
        if self._capacity.disk_full:
            return []
        now = self._session.clock.now()
        tasks = await self._store.claim(self._session.name, State.READY, now, batches, held, lambda _: now + _LEASE)
        return [[task] for task in tasks]

    async def next_due(self) -> float | None:
        """Return when the next download is due, or None while the disk is full."""
        return None if self._capacity.disk_full else await self._store.next_due(self._session.name, State.READY)

    async def work(self, batch: Sequence[Task]) -> None:
        """Download one task's outputs. Where the disk is full the task stays as it is."""
        (task,) = batch
        if self._capacity.space is not None and not self._capacity.space.has_space_for(1):
            self._session.block_disk()
            return
        try:
            await self._download(task)
        except DiskError as error:
            if not is_disk_full(error):
                raise
            self._session.block_disk()

    async def _download(self, task: Task) -> None:
        """Fetch every output, whatever became of the others, and settle the task by all of them.

        Where some are here and the links of the others were dead too often, the task is done with those that are here.
        """
        files: list[Output] = []
        failures: list[Event] = []
        for output in task.outputs:
            file = await self._save(task, output)
            if isinstance(file, DeadLink | RetryLater):
                failures.append(_failure_event(task, file))
            else:
                files.append(file)
        if not failures:
            await self._settlement.settle(task, Saved(tuple(files), self._shortfall(task, len(files))))
            return
        dead = [event for event in failures if isinstance(event, LinkExpired) and event.is_dead]
        gives_up = len(dead) == len(failures) and task.refreshes + 1 >= self._settlement.policy.max_refreshes
        if files and gives_up:
            why = f"{len(files)} of {len(task.outputs)} outputs; {dead[0].error.message or dead[0].error.reason}"
            await self._settlement.settle(task, Saved(tuple(files), TaskError("partial", dead[0].error.code, why)))
            return
        # what may come later decides before what is dead
        await self._settlement.settle(task, next((each for each in failures if each not in dead), failures[0]))

    async def _save(self, task: Task, output: Output) -> Output | DeadLink | RetryLater:
        part = self._parts / f"{task.id}-{task.generation}-{output.number}.part"
        if output.file is not None and await self._offload(
            _has_hash, self._directory / output.file, output.sha256 or ""
        ):
            await self._offload(discard, part)  # a crash may have struck between the name and the part's end
            return output
        fetched = await self._downloader.fetch(output.url, part)
        if not isinstance(fetched, DownloadedFile):
            return fetched
        if self._capacity.space is not None:
            self._capacity.space.record_output(fetched.bytes)
        self._settlement.failpoint("part synced")
        return await self._publish(task, output, part, fetched)

    async def _publish(self, task: Task, output: Output, part: Path, fetched: DownloadedFile) -> Output:
        """Record what the file will be, then give it its name. A name that is taken stays with its file."""
        other = output.sha256 is not None and output.sha256 != fetched.sha256
        if other:
            self._session.on_warning(f"{output.file} was fetched again, and its bytes are others: it gets another name")
        for stem in stems(task.name, task.key, output.number, many=len(task.outputs) > 1):
            name = f"{stem}.{fetched.extension}"
            if other and name == output.file:
                continue
            file = replace(output, file=name, bytes=fetched.bytes, sha256=fetched.sha256, media_type=fetched.media_type)
            await self._store.record_file(task, file)
            self._settlement.failpoint("output recorded")
            try:
                await self._offload(publish, part, self._directory, stem, fetched.extension)
            except FileExistsError:
                continue
            self._settlement.failpoint("renamed")
            return file
        raise FileExistsError(f"{_NAMES} names like {task.name} are taken in {self._directory}")

    def _shortfall(self, task: Task, got: int) -> TaskError:
        operation = self._session.spec.operations.get(task.operation)
        ordered = orjson.loads(task.request).get(operation.count, 1) if operation and operation.count else 1
        if not isinstance(ordered, int) or got >= ordered:
            return NO_ERROR
        return TaskError("partial", None, f"{got} of {ordered} outputs")


def stems(name: str, key: str, number: int, *, many: bool) -> Iterator[str]:
    """Yield names for a task's file: the wanted one first, then the same with the task's key, then with numbers."""
    end = f"-{number}" if many else ""
    yield f"{name}{end}"
    yield f"{name}-{key[:8]}{end}"
    for more in range(2, _NAMES):
        yield f"{name}-{key[:8]}{end}-{more}"


def _has_hash(path: Path, sha256: str) -> bool:
    """Return True if the recorded file is there already: a crash may have struck just after it got its name."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _failure_event(task: Task, outcome: DeadLink | RetryLater) -> Event:
    # a host that has too many of our requests says nothing about the link: fresh links would be used up in vain
    if isinstance(outcome, DeadLink):
        return LinkExpired(outcome.error)
    if task.failures + 1 >= _STALE and outcome.error.code != TOO_MANY_REQUESTS:
        return LinkExpired(outcome.error, is_dead=outcome.error.reason not in _AWAY)
    return RetryableFailure("trouble", outcome.error, outcome.wait)
