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

from runner.report.gallery.cards import thumbnail
from runner.report.gallery.thumbnailer import HEAD, MADE, REFUSED, UNABLE
from runner.report.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

#: seconds that decoding one file may take, and bytes of the largest accepted thumbnail
_PATIENCE = 20.0
_LARGEST = 4 << 20
_WORKERS = 4


class Original(NamedTuple):
    """Output file without a thumbnail."""

    file: str
    sha256: str
    film: bool
    bytes: int


@dataclass
class Developed:
    """Numbers of thumbnails that were made, were refused since the file cannot be decoded, or were unavailable.

    A thumbnail is unavailable if its file is missing or a library is not installed.
    """

    made: int = 0
    refused: int = 0
    unable: int = 0
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def count(self, outcome: int) -> None:
        """Count one outcome; thread-safe."""
        with self._lock:
            self.made += outcome == MADE
            self.refused += outcome == REFUSED
            self.unable += outcome == UNABLE


def wanted(outputs: Iterable[Mapping[str, Any]], file_names: set[str]) -> Iterator[Original]:
    """Yield images and videos without a thumbnail, each content once; adds their names to `file_names`."""
    for output in outputs:
        sha256, kind = output["sha256"] or "", output["media_type"] or ""
        name = thumbnail(sha256)
        if not output["file"] or not name or not kind.startswith(("image/", "video/")):
            continue
        if not {f"{name}.webp", f"{name}.none"} & file_names:
            file_names.add(f"{name}.webp")
            yield Original(output["file"], sha256, kind.startswith("video/"), output["bytes"] or 0)


def develop(directory: Path, folder: Path, sources: Sequence[Original], has_time: Callable[[], bool]) -> Developed:
    """Make thumbnails in `folder` for files in `directory` until `has_time` returns False; raises OSError."""
    counts, remaining, lock = Developed(), iter(sources), Lock()

    def next_source() -> Original | None:
        with lock:
            return next(remaining, None) if has_time() else None

    def work() -> None:
        with _Hand() as worker:
            while source := next_source():
                outcome, body = worker.ask(directory / source.file, film=source.film)
                _keep(folder, source, outcome, body)
                counts.count(outcome)

    workers = min(_WORKERS, os.cpu_count() or 1, len(sources))
    if not workers:
        return counts
    with ThreadPoolExecutor(workers, "thumbnails") as pool:
        for future in [pool.submit(work) for _ in range(workers)]:
            future.result()
    return counts


def _keep(folder: Path, source: Original, outcome: int, body: bytes) -> None:
    """Save a thumbnail, or an empty file as a mark that the content cannot be decoded and is not tried again."""
    name = thumbnail(source.sha256)
    if outcome == MADE:
        with whole_file(folder / f"{name}.webp") as file:
            file.write(body)
    elif outcome == REFUSED:
        with whole_file(folder / f"{name}.none"):
            pass


class _Hand:
    """A worker process that decodes files, started on first use and again after it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def ask(self, path: Path, *, film: bool) -> tuple[int, bytes]:
        """Return the outcome and the thumbnail's bytes; a process that dies or takes too long counts as REFUSED."""
        process = self._process = self._process or self._begin()
        try:
            return self._asked(process, orjson.dumps({"path": str(path.absolute()), "video": film}) + b"\n")
        except (OSError, EOFError, TimeoutError):
            self._end()
            return REFUSED, b""

    @staticmethod
    def _begin() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", "-m", "runner.report.gallery.thumbnailer"]
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=null, bufsize=0, env={}, cwd="/")  # noqa: S603

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
    """Return exactly `count` bytes; raises TimeoutError after the timeout without data, EOFError at the end."""
    data = b""
    while len(data) < count:
        if not select.select([descriptor], [], [], _PATIENCE)[0]:
            raise TimeoutError
        chunk = os.read(descriptor, count - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return data
