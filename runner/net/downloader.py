"""Download of one output to the disk: resumable, within limits, with a check of the content.

    200, 206                           bytes; 206 counts only for the requested range and the requested strong ETag
    403, 404, 410, denied address      DeadLink: a poll may return a new link
    429, 5xx, network, cut, no media   RetryLater; content that is no media goes into quarantine, never to an output

A host that refuses concurrent downloads gets fewer of them, and more again as downloads succeed. Requests carry no
credential and no cookie. At most three redirects are followed, and the address of each is checked.
Requests are sent through the transport directly, since httpx's client would log the signed query of every link.
"""

from __future__ import annotations

import base64
import re
import time
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import anyio
import httpx
from anyio import to_thread

from runner.net.addresses import AddressDeniedError, GuardedResolver, check_url, is_loopback, read_link
from runner.net.body import Inflater, UnreadableBodyError, read_coding
from runner.net.client import USER_AGENT
from runner.net.media import HEAD_SIZE, MediaKind, is_complete_file, sniff
from runner.net.partial_file import MAX_QUARANTINED_BYTES, PartialFile, Quarantine
from runner.net.transport import AiohttpTransport, RequestTrace
from runner.providers.responses import parse_retry_after
from runner.tasks.models import TaskError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from aiohttp.abc import AbstractResolver

    from runner.net.proxy import Proxy

_MIB = 1 << 20
#: maximum number of separate pieces in memory; more are joined
_MAX_PIECES = 256
#: half of the read buffer's limit in bytes; the connection is paused less often than with aiohttp's 64 KiB
_READ_BUFFER = 256 << 10
_MAX_REDIRECTS = 3
_REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
#: statuses of a link that will not work again
_DEAD_STATUSES = frozenset({400, 401, 403, 404, 410})
#: why a link to a public host in plain http was not requested as it stands: anybody on the way could change the file
_PLAIN_NOTE = "the link is http://, which is requested as https:// only"
#: error code of a host that refuses another concurrent download, while the link remains valid
TOO_MANY_REQUESTS = "429"


@dataclass(frozen=True, slots=True)
class DownloadedFile:
    """Outcome of a complete download, checked and flushed to the disk."""

    bytes: int
    sha256: str
    media_type: str
    extension: str


@dataclass(frozen=True, slots=True)
class DeadLink:
    """Outcome of a link that will not work again."""

    error: TaskError


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Outcome of a failure that another attempt may resolve; `wait` is the server's request in seconds, 0.5 to 900."""

    error: TaskError
    wait: float | None = None


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """Limits of one download, in bytes and seconds."""

    #: maximum bytes of a video
    video: int = 2 << 30
    #: maximum bytes of any other file
    other: int = 256 << 20
    #: seconds to connect
    connect: float = 10.0
    #: seconds between two reads
    read: float = 30.0
    #: seconds for the whole file
    deadline: float = 1800.0
    #: minimum bytes per second
    min_rate: float = 1024.0
    #: seconds over which the minimum rate is measured
    min_rate_period: float = 60.0


class _DownloadStoppedError(Exception):
    """Early end of a download, with its outcome."""

    def __init__(self, outcome: DeadLink | RetryLater, *, discard: bool = False) -> None:
        super().__init__(outcome)
        self.outcome = outcome
        #: True if the bytes on the disk must not be resumed
        self.discard = discard


class _NotMediaError(Exception):
    """Content that is not an image, video or audio file; `pieces` are its first bytes."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        super().__init__()
        self.pieces = pieces


class Downloader:
    """Downloader with a limit on concurrent downloads per host; content that is no media goes into `quarantine`."""

    def __init__(
        self,
        *,
        loopback: bool = False,
        limits: DownloadLimits | None = None,
        per_host: int = 2,
        clock: Callable[[], float] = time.monotonic,
        context: ssl.SSLContext | None = None,
        proxy: Proxy | None = None,
        names: AbstractResolver | None = None,
        quarantine: Quarantine | None = None,
    ) -> None:
        self._quarantine = quarantine
        self._loopback = loopback
        self._limits = limits or DownloadLimits()
        self._clock = clock
        self._transport = AiohttpTransport(
            resolver=GuardedResolver(loopback=loopback, names=names),
            context=context,
            proxy=proxy,
            clock=clock,
            read_buffer=_READ_BUFFER,
        )
        self._hosts: defaultdict[str, AdaptiveConcurrency] = defaultdict(lambda: AdaptiveConcurrency(per_host))

    def __repr__(self) -> str:
        return f"Downloader({len(self._hosts)} hosts, loopback={self._loopback})"

    async def fetch(self, url: str, part: Path) -> DownloadedFile | DeadLink | RetryLater:
        """Download `url` to the partial file `part`, and check that the content is complete. Raises DiskError."""
        if url[:5].lower() == "data:":
            return await self._save_inline(url, part)
        link = read_link(url)
        if not self._is_plain(link):
            return await self._fetch_checked(link, part)
        outcome = await self._fetch_checked(f"https://{link[7:]}", part)
        return outcome if isinstance(outcome, DownloadedFile) else _with_note(outcome, _PLAIN_NOTE)

    def _is_plain(self, link: str) -> bool:
        """Return True for a link in plain http, but to this machine where that is allowed."""
        if link[:7].lower() != "http://":
            return False
        try:
            return not (self._loopback and is_loopback(httpx.URL(link).host))
        except (httpx.InvalidURL, ValueError):
            return False

    async def _fetch_checked(self, link: str, part: Path) -> DownloadedFile | DeadLink | RetryLater:
        try:
            checked = check_url(link, loopback=self._loopback)
        except AddressDeniedError as error:
            return DeadLink(TaskError("link_denied", None, str(error)))
        concurrency = self._hosts[checked.netloc.decode("ascii")]
        async with concurrency.acquire() as decreases:
            with anyio.move_on_after(self._limits.deadline):
                outcome = await self._fetch_to(checked, part)
                if isinstance(outcome, DownloadedFile):
                    concurrency.increase()
                    if self._quarantine is not None:
                        await self._quarantine.release(part)
                elif outcome.error.code == TOO_MANY_REQUESTS:
                    concurrency.decrease(decreases)
                return outcome
            return _retry_later("timeout", f"not whole within {self._limits.deadline:g} s")

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()

    async def _save_inline(self, url: str, path: Path) -> DownloadedFile | DeadLink | RetryLater:
        """Write the file that the answer itself holds, as a `data:` URI."""
        head, _, text = url.partition(",")
        try:
            data = base64.b64decode(text, validate=True) if head.lower().endswith(";base64") else b""
        except ValueError:
            data = b""
        kind = sniff(data[:HEAD_SIZE])
        if kind is None:
            return DeadLink(
                TaskError("not_media", None, "the answer holds a `data:` URI that is no picture, film or sound")
            )
        part = PartialFile(path)
        try:
            await to_thread.run_sync(part.reset, "")
            return await to_thread.run_sync(_finish, part, [data], kind)
        finally:
            part.close()

    async def _fetch_to(self, url: httpx.URL, path: Path) -> DownloadedFile | DeadLink | RetryLater:
        part = PartialFile(path)
        try:
            return await self._fill(url, part)
        except _DownloadStoppedError as error:
            if error.discard and not part.is_new:
                await to_thread.run_sync(part.reset, "")
            return error.outcome
        except _NotMediaError as error:
            if not part.is_new:
                await to_thread.run_sync(part.reset, "")
            head = b"".join(error.pieces)[:60].decode("ascii", "backslashreplace")
            name = await self._quarantine.keep(path, error.pieces) if self._quarantine is not None else None
            where = f"; it was put aside as {name}" if name else ""
            return _retry_later("not_media", f"no picture, film or sound begins with {head!r}{where}")
        except httpx.TransportError as error:
            return _retry_later("network", f"{type(error).__name__}: {error}")
        except UnreadableBodyError as error:
            return _retry_later("network", f"Unreadable: {error}")
        finally:
            part.close()

    async def _fill(self, url: httpx.URL, part: PartialFile) -> DownloadedFile | DeadLink | RetryLater:
        """Download the content into `part`.

        A new and small file needs only one call in a thread, because each call costs as much as 100 KB of network.
        """
        tag = "" if part.is_new else await to_thread.run_sync(part.resume)
        async with self._open_response(url, part.size, tag) as answer:
            if answer.status_code in {206, 416} and not _is_continuation(answer, part.size, tag):
                # the partial file cannot be continued, so the next attempt starts from the beginning
                await to_thread.run_sync(part.reset, "")
                return RetryLater(
                    TaskError("range", str(answer.status_code), "the server cannot continue the file"), 0.0
                )
            if answer.status_code == httpx.codes.OK:
                # offsets in compressed content differ from those in the file, so it cannot be resumed
                etag = "" if read_coding(answer.headers.get("content-encoding", "")) else answer.headers.get("etag", "")
                part.reset_on_write(etag)
            buffer = _Buffer(part, self._limits, self._clock)
            kind = await buffer.receive(answer)
        return await to_thread.run_sync(_finish, part, buffer.take_pieces(), kind)

    @asynccontextmanager
    async def _open_response(self, url: httpx.URL, size: int, tag: str) -> AsyncIterator[httpx.Response]:
        """Request the file from byte `size` on, follow redirects, and yield the response that holds it."""
        headers = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
        if tag:
            headers |= {"Range": f"bytes={size}-", "If-Range": tag}
        timeout = {"connect": self._limits.connect, "read": self._limits.read}
        for _ in range(_MAX_REDIRECTS + 1):
            extensions = {"timeout": timeout, "request_trace": RequestTrace(self._clock)}
            request = httpx.Request("GET", url, headers=headers, extensions=extensions)
            response = await self._transport.handle_async_request(request)
            try:
                status = response.status_code
                if status in {200, 206, 416}:
                    yield response
                    return
                if status in _DEAD_STATUSES:
                    raise _DownloadStoppedError(DeadLink(TaskError("link_expired", str(status), f"HTTP {status}")))
                if status not in _REDIRECT_STATUSES:
                    error = TaskError("http", str(status), f"HTTP {status}")
                    raise _DownloadStoppedError(RetryLater(error, retry_after(response.headers)))
                url = self._redirect_target(url, response)
            finally:
                await response.aclose()
        raise _DownloadStoppedError(DeadLink(TaskError("redirects", None, f"more than {_MAX_REDIRECTS} redirects")))

    def _redirect_target(self, url: httpx.URL, response: httpx.Response) -> httpx.URL:
        """Return the checked target of a redirect."""
        location = response.headers.get("location", "")
        try:
            # the raw text is checked first, since joining would quote characters that must be refused
            if not location or "\\" in location or not location.isprintable():
                raise AddressDeniedError("a redirect without a readable address")
            try:
                joined = url.join(location)
            except (httpx.InvalidURL, ValueError):
                raise AddressDeniedError("a redirect without a readable address") from None
            target = check_url(joined, loopback=self._loopback)
            if url.scheme == "https" and target.scheme != "https":
                raise AddressDeniedError("from https to http")
        except AddressDeniedError as error:
            raise _DownloadStoppedError(
                DeadLink(TaskError("redirect_denied", str(response.status_code), str(error)))
            ) from error
        return target


class AdaptiveConcurrency:
    """Concurrency limit of one host, between one and `maximum`; waiting downloads start in order."""

    def __init__(self, maximum: int) -> None:
        self._maximum, self._limit = maximum, float(maximum)
        self._limiter = anyio.CapacityLimiter(maximum)
        #: number of decreases so far
        self._decreases = 0

    def __repr__(self) -> str:
        return f"AdaptiveConcurrency({self._limiter.borrowed_tokens} of {self.size} of {self._maximum})"

    @property
    def size(self) -> int:
        """Return the present limit."""
        return max(1, int(self._limit))

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[int]:
        """Wait for a free place and yield the number of decreases so far, which `decrease` takes."""
        async with self._limiter:
            yield self._decreases

    def decrease(self, decreases: int) -> None:
        """Halve the limit after a download that started at `decreases` was refused.

        Refusals of downloads that started before the last decrease are ignored, so that one burst counts once.
        """
        if decreases == self._decreases:
            self._decreases += 1
            self._set_limit(max(1.0, self._limit / 2))

    def increase(self) -> None:
        """Raise the limit after a complete download, by one for each round of as many downloads as the limit."""
        self._set_limit(min(float(self._maximum), self._limit + 1 / self._limit))

    def _set_limit(self, limit: float) -> None:
        self._limit = limit
        self._limiter.total_tokens = self.size


def retry_after(headers: httpx.Headers) -> float | None:
    """Return the seconds of a Retry-After header, 0.5 to 900, or None."""
    return parse_retry_after(headers.get("retry-after", ""), headers.get("date", ""))


class _Buffer:
    """Buffer of one download that collects pieces up to 1 MiB, so that one call in a thread writes and hashes them."""

    def __init__(self, part: PartialFile, limits: DownloadLimits, clock: Callable[[], float]) -> None:
        self._part, self._limits, self._clock = part, limits, clock
        self._pieces: list[bytes] = []
        self._size = 0
        self._kind = sniff(part.head(HEAD_SIZE))
        #: True if the content is no media, so that nothing of it is written to the partial file
        self._is_not_media = False
        self._received = 0
        #: time and received bytes at the start of the present period of the minimum rate
        self._rate_mark = (clock(), 0)

    async def receive(self, answer: httpx.Response) -> MediaKind:
        """Write the content to the partial file, except for the last pieces (`take_pieces`), and return its kind."""
        encoding = read_coding(answer.headers.get("content-encoding", ""))
        length = answer.headers.get("content-length", "")
        inflater = Inflater(encoding, self._limits.video)
        if not encoding and length.isdigit():
            self._check_size(int(length[:19]))
        try:
            async for chunk in answer.aiter_raw():
                self._received += len(chunk)
                (since, received), now = self._rate_mark, self._clock()
                if now - since >= self._limits.min_rate_period:
                    count = self._received - received
                    if count < self._limits.min_rate * (now - since):
                        message = f"{count} bytes in {now - since:.0f} s"
                        raise _DownloadStoppedError(_retry_later("too_slow", message))
                    self._rate_mark = (now, self._received)
                for piece in inflater.feed(chunk):
                    await self._add(piece)
        except httpx.TransportError:
            if self._kind:  # kept for a resume: otherwise a link that breaks every 900 KB would never make progress
                await to_thread.run_sync(self._part.write, self.take_pieces())
            raise
        inflater.finish()
        kind = self._detect_kind()
        if kind is None:
            raise _NotMediaError(self._pieces)
        return kind

    def take_pieces(self) -> list[bytes]:
        """Return and forget the pieces that are not in the partial file yet."""
        self._check_size(self._size)
        pieces, self._pieces, self._size = self._pieces, [], 0
        return pieces

    async def _add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if len(self._pieces) >= _MAX_PIECES:  # a server that sends single bytes must not fill the memory
            self._pieces = [b"".join(self._pieces)]
        if self._kind is None and not self._is_not_media and self._size >= HEAD_SIZE:
            self._detect_kind()
        if self._is_not_media and self._size >= MAX_QUARANTINED_BYTES:
            raise _NotMediaError(self._pieces)
        if self._size >= _MIB:
            await to_thread.run_sync(self._part.write, self.take_pieces())

    def _detect_kind(self) -> MediaKind | None:
        if self._kind is None:
            self._kind = sniff(b"".join(self._pieces)[:HEAD_SIZE])
            self._is_not_media = self._kind is None
        return self._kind

    def _check_size(self, more: int) -> None:
        limit = self._limits.other if self._kind and not self._kind.is_video else self._limits.video
        if self._part.size + more > limit:
            raise _DownloadStoppedError(_retry_later("too_large", f"more than {limit} bytes"), discard=True)


def _finish(part: PartialFile, rest: Sequence[bytes], kind: MediaKind) -> DownloadedFile | RetryLater:
    """Write the last bytes, check the structure of the file and fsync it; empty the file if it is incomplete."""
    part.write(rest)
    if not is_complete_file(part.path):
        part.reset("")
        return _retry_later("incomplete", f"the {kind.extension} file is cut or damaged")
    part.sync()
    return DownloadedFile(part.size, part.sha256(), kind.media_type, kind.extension)


def _is_continuation(answer: httpx.Response, size: int, tag: str) -> bool:
    """Return True if a 206 is the remainder of the partial file, from byte `size` to the end, with the same ETag."""
    match = re.fullmatch(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})", answer.headers.get("content-range", ""))
    coding = read_coding(answer.headers.get("content-encoding", ""))
    if answer.status_code != httpx.codes.PARTIAL_CONTENT or match is None or coding:
        return False
    begin, end, total = (int(text) for text in match.groups())
    return bool(tag) and begin == size and end + 1 == total and answer.headers.get("etag", tag) == tag


def _with_note(outcome: DeadLink | RetryLater, note: str) -> DeadLink | RetryLater:
    """Return the outcome with a note behind its message."""
    return replace(outcome, error=replace(outcome.error, message=f"{outcome.error.message}; {note}"))


def _retry_later(reason: str, message: str) -> RetryLater:
    return RetryLater(TaskError(reason, None, message))
