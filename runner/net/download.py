"""Download of one output to the disk: resumable, within limits, with a check of the content.

    200, 206                           bytes; 206 counts only for the requested range and the requested strong ETag
    403, 404, 410, denied address      DeadLink: a poll may return a new link
    429, 5xx, network, cut, no media   RetryLater; content that is no media goes into quarantine, never to an output

Requests carry no credential and no cookie. At most three redirects are followed, and the address of each is checked.
Requests are sent through the transport directly, since httpx's client would log the signed query of every link.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import httpx
from anyio import to_thread

from runner.lifecycle.task import Fault
from runner.net.body import Inflater, Unreadable
from runner.net.gateway import USER_AGENT
from runner.net.guard import Denied, GuardedResolver, check_url
from runner.net.media import HEAD, Kind, sniff, whole
from runner.net.part import Part
from runner.net.quarantine import MOST, Quarantine
from runner.net.transport import AiohttpTransport, Evidence
from runner.net.width import Width
from runner.providers.evidence import waiting

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from aiohttp.abc import AbstractResolver

_MIB = 1 << 20
#: maximum number of separate pieces in memory; more are joined
_MOST_PIECES = 256
#: half of the read buffer's limit in bytes; fewer pauses of the connection than with aiohttp's 64 KiB
_READ = 256 << 10
_HOPS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: statuses of a link that will not work again
_GONE = frozenset({400, 401, 403, 404, 410})
#: error code of a host that refuses another concurrent download, while the link remains valid
TOO_MANY = "429"


@dataclass(frozen=True, slots=True)
class Fetched:
    """Outcome of a complete download, checked and flushed to the disk."""

    bytes: int
    sha256: str
    media_type: str
    extension: str


@dataclass(frozen=True, slots=True)
class Dead:
    """Outcome of a link that will not work again."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class Later:
    """Outcome of a failure that another attempt may resolve; `wait` is the server's request in seconds, 0.5 to 900."""

    fault: Fault
    wait: float | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
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
    slowest: float = 1024.0
    #: seconds over which the minimum rate is measured
    over: float = 60.0


class _Ended(Exception):
    """Early end of a download, with its outcome."""

    def __init__(self, outcome: Dead | Later, *, worthless: bool = False) -> None:
        super().__init__(outcome)
        self.outcome = outcome
        #: True if the bytes on the disk must not be resumed
        self.worthless = worthless


class _Foreign(Exception):
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
        bounds: Bounds | None = None,
        per_host: int = 2,
        clock: Callable[[], float] = time.monotonic,
        context: ssl.SSLContext | None = None,
        names: AbstractResolver | None = None,
        quarantine: Quarantine | None = None,
    ) -> None:
        self._quarantine = quarantine
        self._loopback = loopback
        self._bounds = bounds or Bounds()
        self._clock = clock
        self._transport = AiohttpTransport(
            resolver=GuardedResolver(loopback=loopback, names=names), context=context, clock=clock, read=_READ
        )
        self._hosts: defaultdict[str, Width] = defaultdict(lambda: Width(per_host))

    def __repr__(self) -> str:
        return f"Downloader({len(self._hosts)} hosts, loopback={self._loopback})"

    async def fetch(self, url: str, part: Path) -> Fetched | Dead | Later:
        """Download `url` to the partial file `part`, and check that the content is complete. Raises DiskError."""
        try:
            checked = check_url(url, loopback=self._loopback)
        except Denied as error:
            return Dead(Fault("link_denied", None, str(error)))
        concurrency = self._hosts[checked.netloc.decode("ascii")]
        async with concurrency.place() as decreases:
            with anyio.move_on_after(self._bounds.deadline):
                outcome = await self._fetched(checked, part)
                if isinstance(outcome, Fetched):
                    concurrency.served()
                    if self._quarantine is not None:
                        await self._quarantine.release(part)
                elif outcome.fault.code == TOO_MANY:
                    concurrency.refused(decreases)
                return outcome
            return _later("timeout", f"not whole within {self._bounds.deadline:g} s")

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()

    async def _fetched(self, url: httpx.URL, path: Path) -> Fetched | Dead | Later:
        part = Part(path)
        try:
            return await self._filled(url, part)
        except _Ended as error:
            if error.worthless and not part.is_new:
                await to_thread.run_sync(part.restart, "")
            return error.outcome
        except _Foreign as error:
            if not part.is_new:
                await to_thread.run_sync(part.restart, "")
            return await self._put_aside(path, error.pieces)
        except httpx.TransportError as error:
            return _later("network", f"{type(error).__name__}: {error}")
        except Unreadable as error:
            return _later("network", f"Unreadable: {error}")
        finally:
            part.close()

    async def _put_aside(self, path: Path, pieces: Sequence[bytes]) -> Later:
        """Keep content that is no media in the quarantine, and return the outcome of the download."""
        head = b"".join(pieces)[:60].decode("ascii", "backslashreplace")
        name = await self._quarantine.keep(path, pieces) if self._quarantine is not None else None
        where = f"; it was put aside as {name}" if name else ""
        return _later("not_media", f"no picture, film or sound begins with {head!r}{where}")

    async def _filled(self, url: httpx.URL, part: Part) -> Fetched | Dead | Later:
        """Download the content into `part`.

        A new and small file needs only one call in a thread, because each call costs as much as 100 KB of network.
        """
        tag = "" if part.is_new else await to_thread.run_sync(part.resume)
        async with self._answer(url, part.size, tag) as answer:
            if answer.status_code in {206, 416} and not _continues(answer, part.size, tag):
                # the partial file cannot be continued, so the next attempt starts from the beginning
                await to_thread.run_sync(part.restart, "")
                return Later(Fault("range", str(answer.status_code), "the server cannot continue the file"), 0.0)
            if answer.status_code == httpx.codes.OK:
                part.anew(_strong_tag(answer))
            sink = _Sink(part, self._bounds, self._clock)
            kind = await sink.drain(answer)
        return await to_thread.run_sync(_checked, part, sink.taken(), kind)

    @asynccontextmanager
    async def _answer(self, url: httpx.URL, size: int, tag: str) -> AsyncIterator[httpx.Response]:
        """Follow redirects and yield the response that holds the file."""
        for _ in range(_HOPS + 1):
            response = await self._transport.handle_async_request(self._request(url, size, tag))
            try:
                if response.status_code not in _REDIRECTS:
                    _judge(response)
                    yield response
                    return
                url = self._next(url, response)
            finally:
                await response.aclose()
        raise _Ended(Dead(Fault("redirects", None, f"more than {_HOPS} redirects")))

    def _request(self, url: httpx.URL, size: int, tag: str) -> httpx.Request:
        headers = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
        if tag:
            headers |= {"Range": f"bytes={size}-", "If-Range": tag}
        timeout = {"connect": self._bounds.connect, "read": self._bounds.read}
        extensions = {"timeout": timeout, "request_trace": Evidence(self._clock)}
        return httpx.Request("GET", url, headers=headers, extensions=extensions)

    def _next(self, url: httpx.URL, response: httpx.Response) -> httpx.URL:
        """Return the checked target of a redirect."""
        try:
            target = check_url(_joined(url, response.headers.get("location", "")), loopback=self._loopback)
            if url.scheme == "https" and target.scheme != "https":
                raise Denied("from https to http")
        except Denied as error:
            raise _Ended(Dead(Fault("redirect_denied", str(response.status_code), str(error)))) from error
        return target


class _Sink:
    """Buffer of one download: collects pieces up to 1 MiB, so that one call in a thread writes and hashes them."""

    def __init__(self, part: Part, bounds: Bounds, clock: Callable[[], float]) -> None:
        self._part, self._bounds, self._clock = part, bounds, clock
        self._pieces: list[bytes] = []
        self._size = 0
        self._kind = sniff(part.head(HEAD))
        #: True if the content is no media, so that nothing of it is written to the partial file
        self._foreign = False
        self._mark = (clock(), 0)
        self._seen = 0

    async def drain(self, answer: httpx.Response) -> Kind:
        """Write the content to the partial file, except for the last pieces (`take_pieces`), and return its kind."""
        encoding = answer.headers.get("content-encoding", "")
        length = answer.headers.get("content-length", "")
        inflater = Inflater(encoding, self._bounds.video)
        if not encoding and length.isdigit():
            self._check_size(int(length[:19]))
        try:
            async for chunk in answer.aiter_raw():
                self._check_pace(len(chunk))
                for piece in inflater.feed(chunk):
                    await self._take(piece)
        except httpx.TransportError:
            if self._kind:  # kept for a resume: otherwise a link that breaks every 900 KB would never make progress
                await to_thread.run_sync(self._part.write, self.taken())
            raise
        inflater.finish()
        kind = self._known()
        if kind is None:
            raise _Foreign(self._pieces)
        return kind

    def taken(self) -> list[bytes]:
        """Return and forget the pieces that are not in the partial file yet."""
        self._check_size(self._size)
        pieces, self._pieces, self._size = self._pieces, [], 0
        return pieces

    async def _take(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if len(self._pieces) >= _MOST_PIECES:  # a server that sends single bytes must not fill the memory
            self._pieces = [b"".join(self._pieces)]
        if self._kind is None and not self._foreign and self._size >= HEAD:
            self._known()
        if self._foreign and self._size >= MOST:
            raise _Foreign(self._pieces)
        if self._size >= _MIB:
            await to_thread.run_sync(self._part.write, self.taken())

    def _known(self) -> Kind | None:
        if self._kind is None:
            self._kind = sniff(b"".join(self._pieces)[:HEAD])
            self._foreign = self._kind is None
        return self._kind

    def _check_size(self, more: int) -> None:
        limit = self._bounds.other if self._kind and not self._kind.is_video else self._bounds.video
        if self._part.size + more > limit:
            raise _Ended(_later("too_large", f"more than {limit} bytes"), worthless=True)

    def _check_pace(self, more: int) -> None:
        self._seen += more
        (since, received), now = self._mark, self._clock()
        if now - since >= self._bounds.over:
            if self._seen - received < self._bounds.slowest * (now - since):
                raise _Ended(_later("too_slow", f"{self._seen - received} bytes in {now - since:.0f} s"))
            self._mark = (now, self._seen)


def _checked(part: Part, rest: Sequence[bytes], kind: Kind) -> Fetched | Later:
    """Write the last bytes, check the structure of the file and fsync it; empty the file if it is incomplete."""
    part.write(rest)
    if not whole(part.path):
        part.restart("")
        return _later("incomplete", f"the {kind.extension} file is cut or damaged")
    part.sync()
    return Fetched(part.size, part.sha256(), kind.media_type, kind.extension)


def _joined(url: httpx.URL, location: str) -> httpx.URL:
    """Return the target of a redirect.

    The raw text is checked first, since joining would quote characters that must be refused.
    """
    if not location or "\\" in location or not location.isprintable():
        raise Denied("a redirect without a readable address")
    try:
        return url.join(location)
    except (httpx.InvalidURL, ValueError):
        raise Denied("a redirect without a readable address") from None


def _judge(response: httpx.Response) -> None:
    status = response.status_code
    if status in {200, 206, 416}:
        return
    if status in _GONE:
        raise _Ended(Dead(Fault("link_expired", str(status), f"HTTP {status}")))
    raise _Ended(Later(Fault("http", str(status), f"HTTP {status}"), retry_after(response.headers)))


def retry_after(headers: httpx.Headers) -> float | None:
    """Return the seconds of a Retry-After header, 0.5 to 900, or None."""
    return waiting(headers.get("retry-after", ""), headers.get("date", ""))


def _continues(answer: httpx.Response, size: int, tag: str) -> bool:
    """Return True if a 206 is the remainder of the partial file, from byte `size` to the end, with the same ETag."""
    match = re.fullmatch(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})", answer.headers.get("content-range", ""))
    if answer.status_code != httpx.codes.PARTIAL_CONTENT or match is None or answer.headers.get("content-encoding"):
        return False
    begin, end, total = (int(text) for text in match.groups())
    return bool(tag) and begin == size and end + 1 == total and answer.headers.get("etag", tag) == tag


def _strong_tag(answer: httpx.Response) -> str:
    """Return the ETag for a resume, or "" for compressed content, since its offsets differ from those in the file."""
    return "" if answer.headers.get("content-encoding") else answer.headers.get("etag", "")


def _later(reason: str, message: str) -> Later:
    return Later(Fault(reason, None, message))
