"""Brings one output home: resumed, bounded, checked, on the disk.

    200, 206                        bytes; 206 is believed only for the range and the strong ETag that were asked for
    403, 404, 410, denied address   Dead: a poll may bring a fresh link
    429, 5xx, network, cut, no media   Later; what is no media is put aside, never in place of an output

No credential, no cookie, at most three redirects, every hop through the guard. Requests go to the transport itself:
httpx's client would log the signed query of every link (attacks.md X23).
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
#: pieces that are kept apart; more are joined
_MOST_PIECES = 256
#: half the bytes that may wait to be read: fewer stops and starts than with aiohttp's 64 KiB
_READ = 256 << 10
_HOPS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: the link will not work again
_GONE = frozenset({400, 401, 403, 404, 410})
#: the host has as many of us as it likes, and the link is none the worse
TOO_MANY = "429"


@dataclass(frozen=True, slots=True)
class Fetched:
    """The part is whole, checked and on the disk."""

    bytes: int
    sha256: str
    media_type: str
    extension: str


@dataclass(frozen=True, slots=True)
class Dead:
    """The link leads nowhere."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class Later:
    """Not this time; `wait` is what the other side asked for, within bounds."""

    fault: Fault
    wait: float | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one download may cost: bytes and seconds."""

    video: int = 2 << 30
    other: int = 256 << 20
    connect: float = 10.0
    read: float = 30.0
    #: for the whole file
    deadline: float = 1800.0
    #: at least so many bytes a second, over so many seconds
    slowest: float = 1024.0
    over: float = 60.0


class _Ended(Exception):  # noqa: N818 - how a download ends early
    def __init__(self, outcome: Dead | Later, *, worthless: bool = False) -> None:
        super().__init__(outcome)
        self.outcome = outcome
        #: what is here must not be resumed
        self.worthless = worthless


class _Foreign(Exception):  # noqa: N818 - how a download ends that is no picture, film or sound
    def __init__(self, pieces: Sequence[bytes]) -> None:
        super().__init__()
        self.pieces = pieces


class Downloader:
    """Fetches links; a few from each host at once, the rest wait their turn. `quarantine` is for what is no media."""

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
        """Bring the bytes into `part`, whole and checked; DiskError when the disk says no."""
        try:
            first = check_url(url, loopback=self._loopback)
        except Denied as error:
            return Dead(Fault("link_denied", None, str(error)))
        width = self._hosts[first.netloc.decode("ascii")]
        async with width.place() as times:
            with anyio.move_on_after(self._bounds.deadline):
                outcome = await self._fetched(first, part)
                if isinstance(outcome, Fetched):
                    width.served()
                    await self._release(part)
                elif outcome.fault.code == TOO_MANY:
                    width.refused(times)
                return outcome
            return _later("timeout", f"not whole within {self._bounds.deadline:g} s")

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()

    async def _fetched(self, url: httpx.URL, path: Path) -> Fetched | Dead | Later:
        part = Part(path)
        try:
            return await self._filled(url, part)
        except _Ended as ended:
            if ended.worthless and not part.is_new:
                await to_thread.run_sync(part.restart, "")
            return ended.outcome
        except _Foreign as foreign:
            if not part.is_new:
                await to_thread.run_sync(part.restart, "")
            return await self._put_aside(path, foreign.pieces)
        except (httpx.TransportError, Unreadable) as error:
            return _later("network", f"{type(error).__name__}: {error}")
        finally:
            part.close()

    async def _release(self, path: Path) -> None:
        if self._quarantine is not None:
            await self._quarantine.release(path)

    async def _put_aside(self, path: Path, pieces: Sequence[bytes]) -> Later:
        head = b"".join(pieces)[:60].decode("ascii", "backslashreplace")
        kept = await self._quarantine.keep(path, pieces) if self._quarantine is not None else None
        where = f"; it was put aside as {kept}" if kept else ""
        return _later("not_media", f"no picture, film or sound begins with {head!r}{where}")

    async def _filled(self, url: httpx.URL, part: Part) -> Fetched | Dead | Later:
        """One hop to a thread for what is new and small: a thread hop costs as much as 100 KB of network."""
        tag = "" if part.is_new else await to_thread.run_sync(part.resume)
        async with self._answer(url, part.size, tag) as answer:
            if answer.status_code in {206, 416} and not _continues(answer, part.size, tag):
                # what is here cannot be continued: the next look starts from nothing
                await to_thread.run_sync(part.restart, "")
                return Later(Fault("range", str(answer.status_code), "the server cannot continue the file"), 0.0)
            if answer.status_code == httpx.codes.OK:
                part.anew(_strong_tag(answer))
            sink = _Sink(part, self._bounds, self._clock)
            kind = await sink.drain(answer)
        return await to_thread.run_sync(_checked, part, sink.taken(), kind)

    @asynccontextmanager
    async def _answer(self, url: httpx.URL, size: int, tag: str) -> AsyncIterator[httpx.Response]:
        """The first answer that is no redirect, if it holds the file."""
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
        extensions = {"timeout": timeout, "evidence": Evidence(self._clock)}
        return httpx.Request("GET", url, headers=headers, extensions=extensions)

    def _next(self, url: httpx.URL, response: httpx.Response) -> httpx.URL:
        try:
            there = check_url(_joined(url, response.headers.get("location", "")), loopback=self._loopback)
            if url.scheme == "https" and there.scheme != "https":
                raise Denied("from https to http")
        except Denied as error:
            raise _Ended(Dead(Fault("redirect_denied", str(response.status_code), str(error)))) from error
        return there


class _Sink:
    """Gathers pieces up to 1 MiB, so that one thread hop writes and hashes them."""

    def __init__(self, part: Part, bounds: Bounds, clock: Callable[[], float]) -> None:
        self._part, self._bounds, self._clock = part, bounds, clock
        self._pieces: list[bytes] = []
        self._size = 0
        self._kind = sniff(part.head(HEAD))
        #: it is no media: nothing of it gets into the part
        self._foreign = False
        self._mark = (clock(), 0)
        self._seen = 0

    async def drain(self, answer: httpx.Response) -> Kind:
        """Everything that comes, into the part but for what is `taken` last; its kind."""
        coding = answer.headers.get("content-encoding", "")
        length = answer.headers.get("content-length", "")
        inflater = Inflater(coding, self._bounds.video)
        if not coding and length.isdigit():
            self._check_size(int(length[:19]))
        try:
            async for chunk in answer.aiter_raw():
                self._check_pace(len(chunk))
                for piece in inflater.feed(chunk):
                    await self._take(piece)
        except httpx.TransportError:
            if self._kind:  # kept for a resume, or a link cut every 900 KB would never get anywhere
                await to_thread.run_sync(self._part.write, self.taken())
            raise
        inflater.finish()
        kind = self._known()
        if kind is None:
            raise _Foreign(self._pieces)
        return kind

    def taken(self) -> list[bytes]:
        """What is not in the part yet; it is the caller's now."""
        self._check_size(self._size)
        pieces, self._pieces, self._size = self._pieces, [], 0
        return pieces

    async def _take(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if len(self._pieces) >= _MOST_PIECES:  # a drip of single bytes must not fill the memory
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
        most = self._bounds.other if self._kind and not self._kind.is_video else self._bounds.video
        if self._part.size + more > most:
            raise _Ended(_later("too_large", f"more than {most} bytes"), worthless=True)

    def _check_pace(self, more: int) -> None:
        self._seen += more
        (since, had), now = self._mark, self._clock()
        if now - since >= self._bounds.over:
            if self._seen - had < self._bounds.slowest * (now - since):
                raise _Ended(_later("too_slow", f"{self._seen - had} bytes in {now - since:.0f} s"))
            self._mark = (now, self._seen)


def _checked(part: Part, rest: Sequence[bytes], kind: Kind) -> Fetched | Later:
    """The last bytes, structure to the end, then fsync; what is not whole starts again from nothing."""
    part.write(rest)
    if not whole(part.path):
        part.restart("")
        return _later("incomplete", f"the {kind.extension} file is cut or damaged")
    part.sync()
    return Fetched(part.size, part.sha256(), kind.media_type, kind.extension)


def _joined(url: httpx.URL, location: str) -> httpx.URL:
    """Where a redirect leads; the raw text is judged first, since joining quotes what must be refused."""
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
    """Seconds that the other side asks for, 0.5 to 900 (faults.md FA6)."""
    return waiting(headers.get("retry-after", ""), headers.get("date", ""))


def _continues(answer: httpx.Response, size: int, tag: str) -> bool:
    """Whether a 206 is the rest of the very bytes that are here."""
    ranged = re.fullmatch(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})", answer.headers.get("content-range", ""))
    if answer.status_code != httpx.codes.PARTIAL_CONTENT or ranged is None or answer.headers.get("content-encoding"):
        return False
    begin, end, total = (int(text) for text in ranged.groups())
    return bool(tag) and begin == size and end + 1 == total and answer.headers.get("etag", tag) == tag


def _strong_tag(answer: httpx.Response) -> str:
    """The ETag a resume may rely on; inflated bytes have no offsets on the wire, so none then."""
    return "" if answer.headers.get("content-encoding") else answer.headers.get("etag", "")


def _later(reason: str, message: str) -> Later:
    return Later(Fault(reason, None, message))
