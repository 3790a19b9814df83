"""Downloads of the outputs of succeeded tasks, in full, by range, or with an injected fault."""

import asyncio
import re
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256

from runner.sandbox.failures import DOWNLOAD_RESPONSES, faulty_download_response
from runner.sandbox.faults import DOWNLOAD
from runner.sandbox.ledger import AcceptedTask
from runner.sandbox.messages import SandboxRequest, SandboxResponse, html_response
from runner.sandbox.state import EXTENSIONS, Phase, SandboxState

PATH = re.compile(r"/files/(.{1,256})/([0-9])\.(png|mp4)")
RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
CONTENT_TYPES = {"png": "image/png", "mp4": "video/mp4"}
#: Bytes of drawn files kept in memory.
CACHE_BYTES = 64 * 2**20
NOT_FOUND = html_response(404, "404 Not Found")
EXPIRED = html_response(403, "403 Forbidden: request has expired")


@dataclass(frozen=True, slots=True)
class RenderedFile:
    """A drawn output file."""

    content: bytes
    etag: str
    content_type: str


class FileHost:
    """The host of output files. It draws them on request, in threads, and caches the recent ones."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sandbox-media")
        self._cache: OrderedDict[tuple[str, int, int | None], RenderedFile] = OrderedDict()
        self._cached_bytes = 0

    async def handle(self, request: SandboxRequest) -> SandboxResponse:
        """Answer a download request."""
        self._state.counters.record_arrival("GET /files", self._state.clock())
        if not {"authorization", "access_token", "cookie"}.isdisjoint(request.headers):
            self._state.counters.counts["downloads_with_credentials"] += 1
        task, number = self._find_output(request.path)
        if task is None or self._state.phase(task) is not Phase.SUCCEEDED:
            return NOT_FOUND
        if self._is_expired(request):
            return EXPIRED
        fault = self._state.fault_injector.next_fault(DOWNLOAD)
        if fault in DOWNLOAD_RESPONSES:
            return DOWNLOAD_RESPONSES[fault]
        response = range_response(await self._file(task, number), request)
        return faulty_download_response(response, fault, self._state.options.slow_s)

    def close(self) -> None:
        """Stop the drawing threads."""
        self._pool.shutdown(cancel_futures=True)

    def _find_output(self, path: str) -> tuple[AcceptedTask | None, int]:
        """Return the task and the number of the output at this path, or None and a meaningless number."""
        match = PATH.fullmatch(path)
        task = match and self._state.ledger.by_id(match[1])
        if not match or not task or EXTENSIONS[task.kind] != match[3]:
            return None, 0
        count = task.charge if task.kind == "image" else 1
        return (task if int(match[2]) < count else None), int(match[2])

    def _is_expired(self, request: SandboxRequest) -> bool:
        if self._state.options.link_life_s is None:
            return False
        until = request.query.get("until", "")
        return not until.replace(".", "", 1).isdigit() or float(until) <= self._state.clock()

    async def _file(self, task: AcceptedTask, number: int) -> RenderedFile:
        self._state.counters.counts["downloads_served"] += 1
        key = task.id, number, self._state.options.file_bytes
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        file = await asyncio.get_running_loop().run_in_executor(self._pool, _draw_file, task, *key[1:])
        if key not in self._cache:  # another request may have drawn it at the same time
            self._cached_bytes += len(file.content)
            self._cache[key] = file
        while self._cached_bytes > CACHE_BYTES:
            self._cached_bytes -= len(self._cache.popitem(last=False)[1].content)
        return file


def _draw_file(task: AcceptedTask, number: int, size: int | None) -> RenderedFile:
    from runner.sandbox import rendering  # noqa: PLC0415  Pillow and PyAV take 0.1 s to load, and only files need them

    ratio = str(task.request.get("aspect_ratio") or ("1:1" if task.provider == "chanjing" else "16:9"))
    caption = rendering.Caption(task.prompt, task.model, task.id, number, ratio)
    data = rendering.draw_png(caption) if task.kind == "image" else rendering.draw_mp4(caption)
    content = rendering.pad(data, size or 0)
    return RenderedFile(content, f'"{sha256(content).hexdigest()[:32]}"', CONTENT_TYPES[EXTENSIONS[task.kind]])


def range_response(file: RenderedFile, request: SandboxRequest) -> SandboxResponse:
    """Return the whole file, or the requested range of it. A request for several ranges gets the whole file."""
    size = len(file.content)
    requested = _requested_range(request, file, size)
    headers: tuple[tuple[str, str], ...] = (("etag", file.etag), ("accept-ranges", "bytes"))
    if requested is None:
        return SandboxResponse(body=file.content, content_type=file.content_type, headers=headers)
    first, last = requested
    if first > last:
        headers += (("content-range", f"bytes */{size}"),)
        return SandboxResponse(status=416, content_type=file.content_type, headers=headers)
    headers += (("content-range", f"bytes {first}-{last}/{size}"),)
    return SandboxResponse(206, file.content[first : last + 1], file.content_type, headers)


def _requested_range(request: SandboxRequest, file: RenderedFile, size: int) -> tuple[int, int] | None:
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
