"""Uploads pictures before their tasks are bought: once for each content and account, a few at a time.

1. It happens while a task is queued. An upload is free and harmless to repeat, so a crash in the middle needs no trace.
2. What has been uploaded is remembered by content, and asked about once in a run before it is used again.
3. Every end is an end: an address, a refusal, or a setback that costs the task an attempt. Nothing waits for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import anyio

from runner.errors import RunnerError
from runner.lifecycle.events import Blocked, Refused, Setback
from runner.lifecycle.task import Fault, State
from runner.pipeline.attach import changed, files
from runner.providers.pictures import Unfit
from runner.providers.uploading import ask_place, ask_ready, read_place, read_ready
from runner.store.uploads import Upload

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from anyio.abc import TaskGroup, TaskStatus

    from runner.lifecycle.task import Task
    from runner.net.upload import Uploader
    from runner.pipeline.attach import Read
    from runner.pipeline.lane import Lane
    from runner.providers.spec import Upload as Words
    from runner.store.uploads import Uploads

#: queued tasks whose pictures are on their way, and uploads at once
_AHEAD, _AT_ONCE = 16, 4
#: uploads of one picture that are tried before its tasks hear of it
_TRIES = 3
#: seconds before the second try; doubled for each further one
_PAUSE = 2.0
#: seconds between two questions whether a file is there, at first and at the longest
_SOON, _LONGEST = 0.5, 5.0
#: seconds for which a picture that could not be uploaded is left alone; its tasks come again after twice as long
_LEFT_ALONE = 15.0
#: rounds of tries for one picture in one run
_ROUNDS = 8
#: pictures whose end is remembered; the store knows the others
_KEPT = 4096
_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class End:
    """What came of bringing one picture: its address, or what its tasks are told; `until` on the run's clock."""

    url: str
    event: Refused | Setback | None = None
    until: float = float("inf")
    #: rounds of tries that have failed
    rounds: int = 0


class Uploaded:
    """One lane's uploads; implements `attach.Attach`."""

    def __init__(self, lane: Lane, words: Words, read: Read, uploader: Uploader, known: Uploads) -> None:
        self._lane, self._words, self._read, self._uploader, self._known = lane, words, read, uploader, known
        self._began = lane.clock.now()
        self._room = anyio.CapacityLimiter(_AT_ONCE)
        self._ends: dict[str, End] = {}
        #: hashes that each waiting task waits for
        self._waiting: dict[int, set[str]] = {}
        self._under_way: set[str] = set()
        self._group: TaskGroup | None = None
        self._on_bug: Callable[[Exception], None] = lambda _: None

    def __repr__(self) -> str:
        return f"Uploaded({self._lane.name}, {len(self._under_way)} under way, {len(self._waiting)} waiting)"

    @property
    def held(self) -> Collection[int]:
        return tuple(self._waiting)

    def ready(self, task: Task) -> bool:
        return all(self._end(sha256) is not None for _, _, sha256 in files(task))

    def begin(self, task: Task) -> bool:
        if self._group is None or len(self._waiting) >= _AHEAD:
            return False
        missing = {sha256: path for _, path, sha256 in files(task) if self._end(sha256) is None}
        if missing:
            self._waiting[task.id] = set(missing)
        for sha256, path in missing.items():
            if sha256 not in self._under_way:
                self._under_way.add(sha256)
                self._group.start_soon(self._bring, sha256, path)
        return True

    async def values(self, task: Task) -> dict[str, str] | Refused | Setback:
        values = {}
        for place, _, sha256 in files(task):
            end = self._end(sha256)
            if end is None:  # it was ready when the task was claimed, and has been forgotten since
                return Setback("unsent", Fault("upload", None, "the picture is uploaded anew"), 1.0)
            if end.event is not None:
                return end.event
            values[place] = end.url
        return values

    async def run(self, on_bug: Callable[[Exception], None], *, task_status: TaskStatus[None]) -> None:
        self._on_bug = on_bug
        async with anyio.create_task_group() as group:
            self._group = group
            task_status.started()
            try:
                await anyio.sleep_forever()
            finally:
                self._group = None  # a claim that is shielded from the end of the run begins nothing any more

    def _end(self, sha256: str) -> End | None:
        end = self._ends.get(sha256)
        return end if end is not None and self._lane.clock.now() < end.until else None

    async def _bring(self, sha256: str, path: str) -> None:
        """One picture to its end, whatever that is."""
        try:
            async with self._room:
                end = await self._rounds_of(sha256, path)
        except (RunnerError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - the others go on (FP14)
            self._on_bug(error)
            end = End("", Setback("trouble", Fault("upload", None, f"internal error: {error!r}"), 2 * _LEFT_ALONE))
        self._ends[sha256] = end
        while len(self._ends) > _KEPT:
            del self._ends[next(iter(self._ends))]
        self._release(sha256)

    def _release(self, sha256: str) -> None:
        self._under_way.discard(sha256)
        for task_id in [each for each, missing in self._waiting.items() if sha256 in missing]:
            self._waiting[task_id].discard(sha256)
            if not self._waiting[task_id]:
                del self._waiting[task_id]
        self._lane.bell.ring((self._lane.name, State.QUEUED))

    async def _rounds_of(self, sha256: str, path: str) -> End:
        outcome: str | Refused | Setback = Setback("trouble", Fault("upload", None, "the upload took too long"))
        for tries in range(_TRIES):
            await anyio.sleep(_PAUSE * 2.0 ** (tries - 1) if tries else 0.0)
            await self._lane.breaker.until_answering()
            with anyio.move_on_after(self._words.patience):
                async with self._known.turn(sha256):
                    outcome = await self._known_url(sha256) or await self._upload(sha256, path)
            if not isinstance(outcome, Setback):
                break
        match outcome:
            case str():
                return End(outcome)
            case Refused():
                return End("", outcome)
            case Setback():
                return self._left_alone(sha256, outcome)

    def _left_alone(self, sha256: str, event: Setback) -> End:
        before = self._ends.get(sha256)
        rounds = before.rounds + 1 if before else 1
        until = self._lane.clock.now() + _LEFT_ALONE if rounds < _ROUNDS else float("inf")
        return End("", replace(event, wait=max(event.wait or 0.0, 2 * _LEFT_ALONE)), until, rounds)

    async def _known_url(self, sha256: str) -> str | None:
        """Where an earlier upload is, if the provider has it still."""
        known = await self._known.find(sha256, self._oldest)
        if known is None:
            return None
        if known.at >= self._began:
            return known.url
        said = read_ready(self._lane.spec, self._words, await self._lane.send(ask_ready(self._words, known.file_id)))
        return known.url if said == "ready" else None

    async def _upload(self, sha256: str, path: str) -> str | Refused | Setback:
        lane = self._lane
        try:
            picture, data = await lane.offload(self._read, path, sha256)
        except Unfit as error:
            return changed(path, error)
        place = read_place(lane.spec, self._words, await lane.send(ask_place(self._words, picture)))
        if isinstance(place, Setback | Blocked):
            return _set_back(place)
        fault = await self._uploader.put(place.put, data, place.media_type, place.headers)
        if fault is not None:
            return Setback("trouble", fault)
        outcome = await self._until_ready(place.file_id)
        if outcome is not None:
            return outcome
        await self._known.put(Upload(sha256, place.file_id, place.url, lane.clock.now()), self._oldest)
        return place.url

    async def _until_ready(self, file_id: str) -> Refused | Setback | None:
        """Wait for the provider to take the file in; None: it has."""
        pause = _SOON
        while True:
            said = read_ready(self._lane.spec, self._words, await self._lane.send(ask_ready(self._words, file_id)))
            match said:
                case "ready":
                    return None
                case Fault():
                    return Refused(said)
                case Setback() | Blocked():
                    return _set_back(said)
                case "pending":
                    pass
            await anyio.sleep(pause)
            pause = min(_LONGEST, 2 * pause)

    @property
    def _oldest(self) -> float:
        return self._lane.clock.now() - self._words.days * _DAY


def _set_back(event: Setback | Blocked) -> Setback:
    """Where the account itself is refused, the lane knows already; to the task it is a setback."""
    return event if isinstance(event, Setback) else Setback("unsent", event.fault)
