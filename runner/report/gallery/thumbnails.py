"""Make thumbnails in worker processes, so that a hostile file that crashes or hangs a decoder harms nothing else."""

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

from runner.files import atomic_write
from runner.report.gallery.page import thumbnail_name
from runner.report.gallery.thumbnail_worker import HEADER, MADE, REFUSED, UNAVAILABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

#: seconds that decoding one file may take, and bytes of the largest accepted thumbnail
_TIMEOUT = 20.0
_MAX_BYTES = 4 << 20
_WORKERS = 4


class ThumbnailSource(NamedTuple):
    """Output file without a thumbnail."""

    file: str
    sha256: str
    is_video: bool
    bytes: int


@dataclass
class ThumbnailCounts:
    """Numbers of thumbnails that were made, were refused since the file cannot be decoded, or were unavailable.

    A thumbnail is unavailable if its file is missing or a library is not installed.
    """

    made: int = 0
    refused: int = 0
    unavailable: int = 0
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def count(self, outcome: int) -> None:
        """Count one outcome; thread-safe."""
        with self._lock:
            self.made += outcome == MADE
            self.refused += outcome == REFUSED
            self.unavailable += outcome == UNAVAILABLE


def missing_thumbnails(outputs: Iterable[Mapping[str, Any]], file_names: set[str]) -> Iterator[ThumbnailSource]:
    """Yield images and videos without a thumbnail, each content once; adds their names to `file_names`."""
    for output in outputs:
        sha256, kind = output["sha256"] or "", output["media_type"] or ""
        name = thumbnail_name(sha256)
        if not output["file"] or not name or not kind.startswith(("image/", "video/")):
            continue
        if not {f"{name}.webp", f"{name}.none"} & file_names:
            file_names.add(f"{name}.webp")
            yield ThumbnailSource(output["file"], sha256, kind.startswith("video/"), output["bytes"] or 0)


def make_thumbnails(
    directory: Path, folder: Path, sources: Sequence[ThumbnailSource], has_time: Callable[[], bool]
) -> ThumbnailCounts:
    """Make thumbnails in `folder` for files in `directory` until `has_time` returns False; raises OSError."""
    counts, remaining, lock = ThumbnailCounts(), iter(sources), Lock()

    def next_source() -> ThumbnailSource | None:
        with lock:
            return next(remaining, None) if has_time() else None

    def work() -> None:
        with _WorkerProcess() as worker:
            while source := next_source():
                outcome, body = worker.request(directory / source.file, is_video=source.is_video)
                _save(folder, source, outcome, body)
                counts.count(outcome)

    workers = min(_WORKERS, os.cpu_count() or 1, len(sources))
    if not workers:
        return counts
    with ThreadPoolExecutor(workers, "thumbnails") as pool:
        for future in [pool.submit(work) for _ in range(workers)]:
            future.result()
    return counts


def _save(folder: Path, source: ThumbnailSource, outcome: int, body: bytes) -> None:
    """Save a thumbnail, or an empty file as a mark that the content cannot be decoded and is not tried again."""
    name = thumbnail_name(source.sha256)
    if outcome == MADE:
        with atomic_write(folder / f"{name}.webp") as file:
            file.write(body)
    elif outcome == REFUSED:
        with atomic_write(folder / f"{name}.none"):
            pass


class _WorkerProcess:
    """A worker process that decodes files, started on first use and again after it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def request(self, path: Path, *, is_video: bool) -> tuple[int, bytes]:
        """Return the outcome and the thumbnail's bytes; a process that dies or takes too long counts as REFUSED."""
        process = self._process = self._process or self._start()
        try:
            return self._exchange(process, orjson.dumps({"path": str(path.absolute()), "video": is_video}) + b"\n")
        except (OSError, EOFError, TimeoutError):
            self._stop()
            return REFUSED, b""

    @staticmethod
    def _start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", "-m", "runner.report.gallery.thumbnail_worker"]
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=null, bufsize=0, env={}, cwd="/")  # noqa: S603

    @staticmethod
    def _exchange(process: subprocess.Popen[bytes], line: bytes) -> tuple[int, bytes]:
        if process.stdin is None or process.stdout is None:
            raise EOFError
        process.stdin.write(line)
        descriptor = process.stdout.fileno()
        outcome, length = HEADER.unpack(_read_exactly(descriptor, HEADER.size))
        if length > _MAX_BYTES:
            raise EOFError
        return outcome, _read_exactly(descriptor, length)

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            with suppress(OSError):
                self._process.communicate()
            self._process = None


def _read_exactly(descriptor: int, count: int) -> bytes:
    """Return exactly `count` bytes; raises TimeoutError after the timeout without data, EOFError at the end."""
    data = b""
    while len(data) < count:
        if not select.select([descriptor], [], [], _TIMEOUT)[0]:
            raise TimeoutError
        chunk = os.read(descriptor, count - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return data
