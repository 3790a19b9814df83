"""Puts local pictures into a request: as Base64 when it is sent, or as the address of a copy that was uploaded before.

A row holds marks of content. What is sent is that very content, or nothing: where a file has changed since the job was
planned, or is gone, its task is given up, unpaid.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Protocol

import orjson

from runner.lifecycle.events import Refused, Setback
from runner.lifecycle.task import Fault
from runner.providers.pictures import Picture, Unfit, places

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

    from runner.lifecycle.task import Task
    from runner.pipeline.lane import Lane

#: reads a picture by path and hash, in a thread; raises Unfit
Read = Callable[[str, str], tuple[Picture, bytes]]


class Attach(Protocol):
    """How one lane's pictures get into its requests."""

    @property
    def held(self) -> Collection[int]:
        """Ids of the queued tasks whose pictures are on their way."""

    def ready(self, task: Task) -> bool:
        """Whether nothing has to be waited for; asked in the store's thread."""

    def begin(self, task: Task) -> bool:
        """Bring a task's pictures on their way; False where there are too many already."""

    async def values(self, task: Task) -> dict[str, str] | Refused | Setback:
        """What is sent in the place of each mark, or why nothing can be."""

    async def run(self, on_bug: Callable[[Exception], None], *, task_status: TaskStatus[None]) -> None:
        """Do what `begin` begins; for ever."""


class Inline:
    """Base64 in the body: read when it is sent, never kept."""

    held: Collection[int] = ()

    def __init__(self, lane: Lane, read: Read) -> None:
        self._lane, self._read = lane, read

    def ready(self, task: Task) -> bool:  # noqa: ARG002 - the protocol's
        return True

    def begin(self, task: Task) -> bool:  # noqa: ARG002 - the protocol's
        return False

    async def values(self, task: Task) -> dict[str, str] | Refused | Setback:
        values = {}
        for place, path, sha256 in files(task):
            try:
                values[place] = await self._lane.offload(self._encoded, path, sha256)
            except Unfit as error:
                return changed(path, error)
        return values

    async def run(self, on_bug: Callable[[Exception], None], *, task_status: TaskStatus[None]) -> None:  # noqa: ARG002
        """There is nothing to do beforehand."""
        task_status.started()

    def _encoded(self, path: str, sha256: str) -> str:
        return base64.b64encode(self._read(path, sha256)[1]).decode()


async def attached(lane: Lane, task: Task) -> dict[str, str] | Refused | Setback:
    """What is sent in the place of each mark of a task, or why nothing can be."""
    if not task.pictures:
        return {}
    if lane.attach is None:
        return Refused(Fault("image", None, f"{lane.name} takes no local pictures any more"))
    return await lane.attach.values(task)


def files(task: Task) -> list[tuple[str, str, str]]:
    """Place, path and hash of every local picture of a task."""
    if not task.pictures:
        return []
    request, paths = orjson.loads(task.request), orjson.loads(task.pictures)
    fields = dict.fromkeys(place.partition("/")[0] for place in paths)
    return [(place, paths[place], sha256) for place, sha256 in places(request, fields).items() if place in paths]


def changed(path: str, error: Unfit) -> Refused:
    """The task is given up: what it asks for is not here any more."""
    return Refused(Fault("image", None, f"{path} {error.message}: nothing was sent"))
