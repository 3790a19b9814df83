"""Downloads: a name exists only with complete, checked bytes, and an existing file is never overwritten (I9, I10)."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson

from runner.errors import DiskError
from runner.lifecycle.events import LinkExpired, Saved, Setback
from runner.lifecycle.task import NO_FAULT, Fault, State
from runner.net.download import TOO_MANY, Dead, Fetched, Later
from runner.net.part import discard, is_full, publish
from runner.pipeline.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence
    from pathlib import Path

    from runner.lifecycle.events import Event
    from runner.lifecycle.task import Output, Task
    from runner.pipeline.lane import Lane
    from runner.pipeline.stage import Broken

#: setbacks in a row after which a link counts as dead, so that a poll fetches a fresh one
_STALE = 2
#: names that are tried before something is wrong with the directory
_NAMES = 1000
#: seconds until a download that was claimed may be claimed again
_LEASE = 60.0


class Fetch:
    """The downloads of one provider's tasks into the job directory."""

    def __init__(self, lane: Lane, directory: Path) -> None:
        self._lane, self._directory = lane, directory
        self._parts = directory / ".runner" / "parts"

    def stage(self, name: Hashable, broken: Broken) -> Stage:
        """The stage that runs them."""
        return Stage(
            name,
            hands=self._lane.downloads,
            bell=self._lane.bell,
            now=self._lane.clock.now,
            claim=self._claim,
            work=self._work,
            next_due=self._next_due,
            broken=broken,
        )

    async def _claim(self, batches: int, held: set[int]) -> list[Sequence[Task]]:
        lane, now = self._lane, self._lane.clock.now()
        if lane.full:
            return []
        tasks = await lane.store.claim(lane.name, State.READY, now, batches, held, lambda _: now + _LEASE)
        return [[task] for task in tasks]

    async def _next_due(self) -> float | None:
        return None if self._lane.full else await self._lane.store.next_due(self._lane.name, State.READY)

    async def _work(self, batch: Sequence[Task]) -> None:
        """Download one task's outputs; where the disk is full it stays as it is (FD2)."""
        (task,) = batch
        if self._lane.space is not None and not self._lane.space.has_room(1):
            self._lane.fill()
            return
        try:
            await self._bring(task)
        except DiskError as error:
            if not is_full(error):
                raise
            self._lane.fill()

    async def _bring(self, task: Task) -> None:
        files: list[Output] = []
        for output in task.outputs:
            file = await self._save(task, output)
            if isinstance(file, Dead | Later):
                await self._lane.settle(task, _missed(task, file))
                return
            files.append(file)
        await self._lane.settle(task, Saved(tuple(files), self._shortfall(task, len(files))))

    async def _save(self, task: Task, output: Output) -> Output | Dead | Later:
        part = self._parts / f"{task.id}-{task.generation}-{output.number}.part"
        if output.file is not None and await self._is_here(output.file, output.sha256 or ""):
            await self._lane.offload(discard, part)  # a crash may have struck between the name and the part's end
            return output
        fetched = await self._lane.downloader.fetch(output.url, part)
        if not isinstance(fetched, Fetched):
            return fetched
        if self._lane.space is not None:
            self._lane.space.saved(fetched.bytes)
        self._lane.reach("part synced")
        return await self._publish(task, output, part, fetched)

    async def _is_here(self, file: str, sha256: str) -> bool:
        here: bool = await self._lane.offload(_has_hash, self._directory / file, sha256)
        return here

    async def _publish(self, task: Task, output: Output, part: Path, fetched: Fetched) -> Output:
        """Record what the file will be, then give it its name; a name that is taken is left to whoever has it."""
        other = output.sha256 is not None and output.sha256 != fetched.sha256
        if other:
            self._lane.notice(f"{output.file} was fetched again, and its bytes are others: it gets another name")
        for stem in stems(task.name, task.key, output.number, many=len(task.outputs) > 1):
            name = f"{stem}.{fetched.extension}"
            if other and name == output.file:
                continue
            file = replace(output, file=name, bytes=fetched.bytes, sha256=fetched.sha256, media_type=fetched.media_type)
            await self._lane.store.record(task, file)
            self._lane.reach("output recorded")
            try:
                await self._lane.offload(publish, part, self._directory, stem, fetched.extension)
            except FileExistsError:
                continue
            self._lane.reach("renamed")
            return file
        raise FileExistsError(f"{_NAMES} names like {task.name} are taken in {self._directory}")

    def _shortfall(self, task: Task, got: int) -> Fault:
        operation = self._lane.spec.operations.get(task.operation)
        ordered = orjson.loads(task.request).get(operation.count, 1) if operation and operation.count else 1
        if not isinstance(ordered, int) or got >= ordered:
            return NO_FAULT
        return Fault("partial", None, f"{got} of {ordered} outputs")


def _has_hash(path: Path, sha256: str) -> bool:
    """Whether the file that was recorded is there already: a crash may have struck just after it got its name."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _missed(task: Task, outcome: Dead | Later) -> Event:
    # a host that has too many of us says nothing about the link: fresh ones would be used up in vain
    if isinstance(outcome, Dead) or (task.failures + 1 >= _STALE and outcome.fault.code != TOO_MANY):
        return LinkExpired(outcome.fault)
    return Setback("trouble", outcome.fault, outcome.wait)


def stems(name: str, key: str, number: int, *, many: bool) -> Iterator[str]:
    """What a task's file may be called: the wanted name first, then the same with the task's key, then with numbers."""
    end = f"-{number}" if many else ""
    yield f"{name}{end}"
    yield f"{name}-{key[:8]}{end}"
    for more in range(2, _NAMES):
        yield f"{name}-{key[:8]}{end}-{more}"
