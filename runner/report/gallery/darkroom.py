"""Has thumbnails made: each once, by processes that may crash, hang or be stuffed with anything without harm to us."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import orjson

from runner.report.gallery.cards import thumbnail
from runner.report.gallery.thumbnailer import HEAD, MADE, REFUSED, UNABLE
from runner.report.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

#: seconds that one picture may take, and bytes that one thumbnail may have
_PATIENCE = 20.0
_LARGEST = 4 << 20
_WORKERS = 4


class Original(NamedTuple):
    """An output that wants a thumbnail."""

    file: str
    sha256: str
    film: bool
    bytes: int


@dataclass
class Developed:
    """What came of it: how many were made, how many cannot be, and how many lack a library or were not there."""

    made: int = 0
    refused: int = 0
    unable: int = 0
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def count(self, outcome: int) -> None:
        """Take one outcome into account."""
        with self._lock:
            self.made += outcome == MADE
            self.refused += outcome == REFUSED
            self.unable += outcome == UNABLE


def wanted(outputs: Iterable[Mapping[str, Any]], made: set[str]) -> Iterator[Original]:
    """Those outputs of rows that have no thumbnail yet, each content once; sound has no picture."""
    for output in outputs:
        sha256, kind = output["sha256"] or "", output["media_type"] or ""
        name = thumbnail(sha256)
        if not output["file"] or not name or not kind.startswith(("image/", "video/")):
            continue
        if not {f"{name}.webp", f"{name}.none"} & made:
            made.add(f"{name}.webp")
            yield Original(output["file"], sha256, kind.startswith("video/"), output["bytes"] or 0)


def develop(directory: Path, folder: Path, originals: Sequence[Original], has_time: Callable[[], bool]) -> Developed:
    """Make thumbnails in `folder` of files in `directory`, as long as there is time; raises OSError."""
    told, left, turn = Developed(), iter(originals), Lock()

    def following() -> Original | None:
        with turn:
            return next(left, None) if has_time() else None

    def work() -> None:
        with _Hand() as hand:
            while original := following():
                outcome, body = hand.ask(directory / original.file, film=original.film)
                _keep(folder, original, outcome, body)
                told.count(outcome)

    count = min(_WORKERS, os.cpu_count() or 1, len(originals))
    if not count:
        return told
    with ThreadPoolExecutor(count, "thumbnails") as pool:
        for hand in [pool.submit(work) for _ in range(count)]:
            hand.result()
    return told


def _keep(folder: Path, original: Original, outcome: int, body: bytes) -> None:
    """A thumbnail, or an empty file that says there can be none, so that nobody tries again."""
    name = thumbnail(original.sha256)
    if outcome == MADE:
        with whole_file(folder / f"{name}.webp") as file:
            file.write(body)
    elif outcome == REFUSED:
        with whole_file(folder / f"{name}.none"):
            pass


class _Hand:
    """One process that decodes, begun when it is first needed and anew when it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def ask(self, path: Path, *, film: bool) -> tuple[int, bytes]:
        """The outcome and the bytes; a process that dies of it, or takes too long, has refused."""
        process = self._process = self._process or self._begin()
        try:
            return self._asked(process, orjson.dumps({"path": str(path.absolute()), "film": film}) + b"\n")
        except (OSError, EOFError, TimeoutError):
            self._end()
            return REFUSED, b""

    @staticmethod
    def _begin() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", "-m", "runner.report.gallery.thumbnailer"]
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing, bufsize=0, env={}, cwd="/")  # noqa: S603

    @staticmethod
    def _asked(process: subprocess.Popen[bytes], line: bytes) -> tuple[int, bytes]:
        if process.stdin is None or process.stdout is None:
            raise EOFError
        process.stdin.write(line)
        descriptor = process.stdout.fileno()
        outcome, length = HEAD.unpack(_read(descriptor, HEAD.size))
        if length > _LARGEST:
            raise EOFError
        return outcome, _read(descriptor, length)

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            with suppress(OSError):
                self._process.communicate()
            self._process = None


def _read(descriptor: int, count: int) -> bytes:
    """So many bytes; raises TimeoutError, EOFError."""
    found = b""
    while len(found) < count:
        if not select.select([descriptor], [], [], _PATIENCE)[0]:
            raise TimeoutError
        piece = os.read(descriptor, count - len(found))
        if not piece:
            raise EOFError
        found += piece
    return found
