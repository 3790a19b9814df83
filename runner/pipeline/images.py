"""Local images in requests: Base64 when a request is sent, or the address of a copy that was uploaded before.

A row holds hashes of content. What is sent is that very content, or nothing: where a file has changed since the job was
planned, or is gone, its task fails unpaid.

Uploads happen before their tasks are bought: once for each content and account, a few at a time.

1. They happen while a task is queued. An upload is free and can be repeated, so a crash in the middle needs no trace.
2. An uploaded image is remembered by content, and the provider is asked once in a run before it is used again.
3. Every upload ends: with an address, a refusal, or a failure that costs the task an attempt. No task waits forever.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import orjson

from runner.errors import RunnerError
from runner.lifecycle.events import Blocked, Refused, Setback
from runner.lifecycle.task import Fault, State
from runner.providers.pictures import Picture, Unfit, places
from runner.providers.uploading import ask_place, ask_ready, read_place, read_ready
from runner.store.uploads import Upload

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from anyio.abc import TaskGroup, TaskStatus

    from runner.lifecycle.task import Task
    from runner.net.upload import Uploader
    from runner.pipeline.session import ProviderSession
    from runner.providers.spec import Upload as UploadSpec
    from runner.store.uploads import Uploads

#: reads an image by path and hash, in a thread; raises Unfit
ReadImage = Callable[[str, str], tuple[Picture, bytes]]

#: queued tasks whose images are being uploaded, and uploads at once
_AHEAD, _AT_ONCE = 16, 4
#: uploads of one image that are tried before its tasks fail an attempt
_TRIES = 3
#: seconds before the second try; doubled for each further one
_PAUSE = 2.0
#: seconds between two questions whether a file is ready, at first and at most
_SOON, _LONGEST = 0.5, 5.0
#: seconds for which an image that could not be uploaded is left alone; its tasks come again after twice as long
_COOLDOWN = 15.0
#: rounds of tries for one image in one run
_ROUNDS = 8
#: images whose result is kept in memory; the store knows the others
_KEPT = 4096
_DAY = 86_400.0


class ImageSource(Protocol):
    """How the local images of one provider's tasks get into its requests."""

    @property
    def held(self) -> Collection[int]:
        """Return the ids of queued tasks whose images are being uploaded."""

    def is_ready(self, task: Task) -> bool:
        """Return True if the task waits for no upload. Called in the store's thread."""

    def prepare(self, task: Task) -> bool:
        """Start to upload a task's images. Return False if there are too many uploads already."""

    async def values(self, task: Task) -> dict[str, str] | Refused | Setback:
        """Return the value to send in the place of each hash, or why the task cannot be sent."""

    async def run(self, on_bug: Callable[[Exception], None], *, task_status: TaskStatus[None]) -> None:
        """Run the uploads that `prepare` starts, until cancelled."""


class InlineImages:
    """Images as Base64 in the body, read when a request is sent and never kept."""

    held: Collection[int] = ()

    def __init__(self, read: ReadImage, offload: Callable[..., Awaitable[Any]]) -> None:
        self._read, self._offload = read, offload

    def is_ready(self, task: Task) -> bool:  # noqa: ARG002 - the protocol's
        """Return True: inline images need no upload."""
        return True

    def prepare(self, task: Task) -> bool:  # noqa: ARG002 - the protocol's
        """Return False: there is nothing to upload."""
        return False

    async def values(self, task: Task) -> dict[str, str] | Refused | Setback:
        """Return the Base64 text of each image, or why the task cannot be sent."""
        values = {}
        for place, path, sha256 in local_images(task):
            try:
                values[place] = await self._offload(self._encode, path, sha256)
            except Unfit as error:
                return image_changed(path, error)
        return values

    async def run(self, on_bug: Callable[[Exception], None], *, task_status: TaskStatus[None]) -> None:  # noqa: ARG002
        """Do nothing: there is nothing to upload."""
        task_status.started()

    def _encode(self, path: str, sha256: str) -> str:
        return base64.b64encode(self._read(path, sha256)[1]).decode()


@dataclass(frozen=True, slots=True)
class UploadResult:
    """Outcome of uploading one image, valid until `until` (run clock, seconds)."""

    url: str
    #: why the image's tasks are not sent; None: it was uploaded
    event: Refused | Setback | None = None
    until: float = float("inf")
    #: rounds of tries that have failed
    rounds: int = 0


class UploadedImages:
    """Images that are uploaded before their tasks are submitted; the uploads of one provider."""

    def __init__(
        self,
        session: ProviderSession,
        spec: UploadSpec,
        read: ReadImage,
        uploader: Uploader,
        known: Uploads,
        offload: Callable[..., Awaitable[Any]],
    ) -> None:
        self._session, self._spec, self._read, self._uploader, self._known = session, spec, read, uploader, known
        self._offload = offload
        self._began = session.clock.now()
        self._limit = anyio.CapacityLimiter(_AT_ONCE)
        self._results: dict[str, UploadResult] = {}
        #: hashes that each waiting task waits for
        self._waiting: dict[int, set[str]] = {}
        self._under_way: set[str] = set()
        self._group: TaskGroup | None = None
        self._on_bug: Callable[[Exception], None] = lambda _: None

    def __repr__(self) -> str:
        return f"UploadedImages({self._session.name}, {len(self._under_way)} under way, {len(self._waiting)} waiting)"

    @property
    def held(self) -> Collection[int]:
        """Return the ids of queued tasks whose images are being uploaded."""
        return tuple(self._waiting)

    def is_ready(self, task: Task) -> bool:
        """Return True if every image of the task has a result."""
        return all(self._result(sha256) is not None for _, _, sha256 in local_images(task))

    def prepare(self, task: Task) -> bool:
        """Start to upload the images that have no result. Return False if there are too many uploads already."""
        if self._group is None or len(self._waiting) >= _AHEAD:
            return False
        missing = {sha256: path for _, path, sha256 in local_images(task) if self._result(sha256) is None}
        if missing:
            self._waiting[task.id] = set(missing)
        for sha256, path in missing.items():
            if sha256 not in self._under_way:
                self._under_way.add(sha256)
                self._group.start_soon(self._bring, sha256, path)
        return True

    async def values(self, task: Task) -> dict[str, str] | Refused | Setback:
        """Return the address of each image, or why the task cannot be sent."""
        values = {}
        for place, _, sha256 in local_images(task):
            result = self._result(sha256)
            if result is None:  # it was ready when the task was claimed, and has been forgotten since
                return Setback("unsent", Fault("upload", None, "the picture is uploaded anew"), 1.0)
            if result.event is not None:
                return result.event
            values[place] = result.url
        return values

    async def run(self, on_bug: Callable[[Exception], None], *, task_status: TaskStatus[None]) -> None:
        """Run the uploads that `prepare` starts, until cancelled."""
        self._on_bug = on_bug
        async with anyio.create_task_group() as group:
            self._group = group
            task_status.started()
            try:
                await anyio.sleep_forever()
            finally:
                self._group = None  # a claim that is shielded from the end of the run starts no upload any more

    def _result(self, sha256: str) -> UploadResult | None:
        result = self._results.get(sha256)
        return result if result is not None and self._session.clock.now() < result.until else None

    async def _bring(self, sha256: str, path: str) -> None:
        """Upload one image, keep its result, and wake the tasks that wait for it."""
        try:
            async with self._limit:
                result = await self._upload_with_retries(sha256, path)
        except (RunnerError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - a bug in one task's work must not stop the others
            self._on_bug(error)
            bug = Fault("upload", None, f"internal error: {error!r}")
            result = UploadResult("", Setback("trouble", bug, 2 * _COOLDOWN))
        self._results[sha256] = result
        while len(self._results) > _KEPT:
            del self._results[next(iter(self._results))]
        self._under_way.discard(sha256)
        for task_id in [each for each, missing in self._waiting.items() if sha256 in missing]:
            self._waiting[task_id].discard(sha256)
            if not self._waiting[task_id]:
                del self._waiting[task_id]
        self._session.notifier.notify((self._session.name, State.QUEUED))

    async def _upload_with_retries(self, sha256: str, path: str) -> UploadResult:
        outcome: str | Refused | Setback = Setback("trouble", Fault("upload", None, "the upload took too long"))
        for tries in range(_TRIES):
            await anyio.sleep(_PAUSE * 2.0 ** (tries - 1) if tries else 0.0)
            await self._session.breaker.until_answering()
            with anyio.move_on_after(self._spec.patience):
                async with self._known.turn(sha256):
                    outcome = await self._known_url(sha256) or await self._upload(sha256, path)
            if not isinstance(outcome, Setback):
                break
        match outcome:
            case str():
                return UploadResult(outcome)
            case Refused():
                return UploadResult("", outcome)
            case Setback():
                before = self._results.get(sha256)
                rounds = before.rounds + 1 if before else 1
                until = self._session.clock.now() + _COOLDOWN if rounds < _ROUNDS else float("inf")
                later = replace(outcome, wait=max(outcome.wait or 0.0, 2 * _COOLDOWN))
                return UploadResult("", later, until, rounds)

    async def _known_url(self, sha256: str) -> str | None:
        """Return the address of an earlier upload, if the provider still has it."""
        known = await self._known.find(sha256, self._oldest)
        if known is None:
            return None
        if known.at >= self._began:
            return known.url
        outcome = await self._session.send(ask_ready(self._spec, known.file_id))
        return known.url if read_ready(self._session.spec, self._spec, outcome) == "ready" else None

    async def _upload(self, sha256: str, path: str) -> str | Refused | Setback:
        session = self._session
        try:
            picture, data = await self._offload(self._read, path, sha256)
        except Unfit as error:
            return image_changed(path, error)
        place = read_place(session.spec, self._spec, await session.send(ask_place(self._spec, picture)))
        if isinstance(place, Setback | Blocked):
            return _as_failure(place)
        fault = await self._uploader.put(place.put, data, place.media_type, place.headers)
        if fault is not None:
            return Setback("trouble", fault)
        outcome = await self._until_ready(place.file_id)
        if outcome is not None:
            return outcome
        await self._known.put(Upload(sha256, place.file_id, place.url, session.clock.now()), self._oldest)
        return place.url

    async def _until_ready(self, file_id: str) -> Refused | Setback | None:
        """Wait until the provider has taken the file in. Return None then, or why it has not."""
        pause = _SOON
        while True:
            outcome = await self._session.send(ask_ready(self._spec, file_id))
            status = read_ready(self._session.spec, self._spec, outcome)
            match status:
                case "ready":
                    return None
                case Fault():
                    return Refused(status)
                case Setback() | Blocked():
                    return _as_failure(status)
                case "pending":
                    pass
            await anyio.sleep(pause)
            pause = min(_LONGEST, 2 * pause)

    @property
    def _oldest(self) -> float:
        return self._session.clock.now() - self._spec.days * _DAY


async def image_values(images: ImageSource | None, task: Task, provider: str) -> dict[str, str] | Refused | Setback:
    """Return the value to send in the place of each hash of a task, or why the task cannot be sent."""
    if not task.pictures:
        return {}
    if images is None:
        return Refused(Fault("image", None, f"{provider} takes no local pictures any more"))
    return await images.values(task)


def local_images(task: Task) -> list[tuple[str, str, str]]:
    """Return place in the request, path and hash of every local image of a task."""
    if not task.pictures:
        return []
    request, paths = orjson.loads(task.request), orjson.loads(task.pictures)
    fields = dict.fromkeys(place.partition("/")[0] for place in paths)
    return [(place, paths[place], sha256) for place, sha256 in places(request, fields).items() if place in paths]


def image_changed(path: str, error: Unfit) -> Refused:
    """Return the refusal of a task whose image is gone or has changed."""
    return Refused(Fault("image", None, f"{path} {error.message}: nothing was sent"))


def _as_failure(event: Setback | Blocked) -> Setback:
    """Return a failure of the task. Where the account itself is refused, the session has noted it already."""
    return event if isinstance(event, Setback) else Setback("unsent", event.fault)
