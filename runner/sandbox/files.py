"""Downloads of the outputs of succeeded tasks, in full, by range, or with an injected fault."""

import asyncio
import re
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256

from runner.sandbox.faults import DOWNLOAD
from runner.sandbox.ledger import Accepted
from runner.sandbox.messages import Answer, Request, as_page
from runner.sandbox.troubles import DOWNLOAD_ANSWERS, spoiled_download
from runner.sandbox.world import EXTENSIONS, Phase, World

PATH = re.compile(r"/files/([0-9A-Za-z_-]{1,64})/([0-9])\.(png|mp4)")
RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
CONTENT_TYPES = {"png": "image/png", "mp4": "video/mp4"}
#: Bytes of drawn files kept in memory.
CACHE_BYTES = 64 * 2**20
NOT_FOUND = as_page(404, "404 Not Found")
EXPIRED = as_page(403, "403 Forbidden: request has expired")


@dataclass(frozen=True, slots=True)
class File:
    """A drawn output file."""

    content: bytes
    etag: str
    content_type: str


class Files:
    """The host of output files. It draws them on request, in threads, and caches the recent ones."""

    def __init__(self, state: World) -> None:
        self._world = state
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sandbox-media")
        self._cache: OrderedDict[tuple[str, int, int | None], File] = OrderedDict()
        self._cached_bytes = 0

    async def answer(self, request: Request) -> Answer:
        """Answer a download request."""
        self._world.traffic.arrived("GET /files", self._world.clock())
        if not {"authorization", "access_token", "cookie"}.isdisjoint(request.headers):
            self._world.traffic.counts["downloads_with_credentials"] += 1
        task, number = self._wanted(request.path)
        if task is None or self._world.phase(task) is not Phase.SUCCEEDED:
            return NOT_FOUND
        if self._expired(request):
            return EXPIRED
        fault = self._world.dice.roll(DOWNLOAD)
        if fault in DOWNLOAD_ANSWERS:
            return DOWNLOAD_ANSWERS[fault]
        response = ranged(await self._file(task, number), request)
        return spoiled_download(response, fault, self._world.options.slow_s)

    def close(self) -> None:
        """Stop the drawing threads."""
        self._pool.shutdown(cancel_futures=True)

    def _wanted(self, path: str) -> tuple[Accepted | None, int]:
        """Return the task and the number of the output at this path, or None and a meaningless number."""
        match = PATH.fullmatch(path)
        task = match and self._world.ledger.by_id(match[1])
        if not match or not task or EXTENSIONS[task.kind] != match[3]:
            return None, 0
        count = task.charge if task.kind == "image" else 1
        return (task if int(match[2]) < count else None), int(match[2])

    def _expired(self, request: Request) -> bool:
        if self._world.options.link_life_s is None:
            return False
        until = request.query.get("until", "")
        return not until.replace(".", "", 1).isdigit() or float(until) <= self._world.clock()

    async def _file(self, task: Accepted, number: int) -> File:
        self._world.traffic.counts["downloads_served"] += 1
        key = task.id, number, self._world.options.file_bytes
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        file = await asyncio.get_running_loop().run_in_executor(self._pool, _draw, task, *key[1:])
        self._keep(key, file)
        return file

    def _keep(self, key: tuple[str, int, int | None], file: File) -> None:
        if key not in self._cache:
            self._cached_bytes += len(file.content)
            self._cache[key] = file
        while self._cached_bytes > CACHE_BYTES:
            self._cached_bytes -= len(self._cache.popitem(last=False)[1].content)


def _draw(task: Accepted, number: int, size: int | None) -> File:
    from runner.sandbox import media  # noqa: PLC0415  Pillow and PyAV take 0.1 s to load, and only files need them

    ratio = str(task.request.get("aspect_ratio") or ("1:1" if task.provider == "chanjing" else "16:9"))
    caption = media.Caption(task.prompt, task.model, task.id, number, ratio)
    data = media.png(caption) if task.kind == "image" else media.mp4(caption)
    content = media.padded(data, size or 0)
    return File(content, f'"{sha256(content).hexdigest()[:32]}"', CONTENT_TYPES[EXTENSIONS[task.kind]])


def ranged(file: File, request: Request) -> Answer:
    """Return the whole file, or the requested range of it. A request for several ranges gets the whole file."""
    size = len(file.content)
    requested = _span(request, file, size)
    headers: tuple[tuple[str, str], ...] = (("etag", file.etag), ("accept-ranges", "bytes"))
    if requested is None:
        return Answer(body=file.content, content_type=file.content_type, headers=headers)
    first, last = requested
    if first > last:
        headers += (("content-range", f"bytes */{size}"),)
        return Answer(status=416, content_type=file.content_type, headers=headers)
    headers += (("content-range", f"bytes {first}-{last}/{size}"),)
    return Answer(206, file.content[first : last + 1], file.content_type, headers)


def _span(request: Request, file: File, size: int) -> tuple[int, int] | None:
    """Return the first and the last byte of the requested range, or None for the whole file.

    The first is greater than the last if the range lies outside of the file.
    """
    match = RANGE.fullmatch(request.headers.get("range", ""))
    if not match or match[1] == match[2] == "" or request.headers.get("if-range", file.etag) != file.etag:
        return None
    if match[1] == "":
        return max(0, size - int(match[2])), size - 1
    first, last = int(match[1]), int(match[2] or size)
    if match[2] and last < first:
        return None
    return first, min(last, size - 1)
