"""`serve`: a live page of all jobs below a directory, which pushes changes to every open browser."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

import orjson

from runner.app.pretending import pretends
from runner.errors import ConfigError, RunnerError
from runner.pipeline.clock import Clock
from runner.report import facts_file
from runner.report.gallery.page import live_page
from runner.report.gallery.place import FOLDER, PAGE, is_ours
from runner.report.gauge import Gauge
from runner.store.lock import runs
from runner.store.view import view

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from pathlib import Path

#: seconds between two scans at least, and the pause after a scan as a multiple of its duration
_TICK, _SHARE = 0.5, 5
#: seconds without a change after which a comment keeps the connection alive
_BEAT = 15.0
#: jobs that are shown, latest changes first, with files and errors of each
_MOST, _FILES, _FAULTS = 50, 12, 5
_SHOWN = frozenset({".png", ".jpg", ".webp", ".gif", ".avif", ".mp4", ".webm", ".mov", ".wav", ".mp3"})


def jobs_below(root: Path) -> Iterator[Path]:
    """Yield every job directory down to the third level, `root` itself included."""
    for depth in (".", "*", "*/*", "*/*/*"):
        yield from (state.parent.parent for state in sorted(root.glob(f"{depth}/.runner/state.db")))


class _Watched:
    """One job with the latest snapshot of its state."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self.name = directory, name
        self.told: dict[str, Any] = {}
        #: what changes with every write of the job's database, and whether a run is on
        self._mark: tuple[object, ...] = ()
        self._gauge = Gauge()
        self._gauges: dict[str, Gauge] = {}

    def look(self, now: float) -> bool:
        """Read the job's state if it may have changed, and return True if the snapshot is new."""
        state = self.directory / ".runner"
        mark = (*_stamps(state), runs(state))
        if mark == self._mark and not mark[-1]:
            return False
        self._mark = mark
        try:
            snapshot = self._seen(state, now, running=bool(mark[-1]))
        except (RunnerError, OSError) as error:
            if mark[-1] and not self.told:
                return False  # its first run is just making the database
            snapshot = {"id": self.name, "job": self.directory.name, "trouble": str(error)}
        changed = snapshot != self.told
        self.told = snapshot
        return changed

    def _seen(self, state: Path, now: float, *, running: bool) -> dict[str, Any]:
        """Return the job's state as the JSON object that the page shows."""
        info = facts_file.read(state)
        with view(state) as job, job.at_once():
            counts, by_provider = job.counts(), job.counts_by_provider()
            self._gauge.look(counts, now)
            eta = self._gauge.eta(counts) if running else None
            return {
                "id": self.name,
                "job": job.name() or self.directory.resolve().name,
                "directory": str(self.directory),
                "running": running,
                "pretend": pretends(state),
                "changed": max(_stamps(state)),
                "counts": counts,
                "total": sum(counts.values()),
                "eta": None if eta is None else round(eta),
                "providers": [self._share(name, share, info.limits, now) for name, share in by_provider.items()],
                "cost": job.spent(),
                "max_cost": info.max_cost,
                "unit": info.unit,
                "faults": [
                    {name: group[name] for name in ("state", "reason", "message", "count")}
                    for group in job.faults()[:_FAULTS]
                ],
                "files": job.latest(_FILES),
                "page": is_ours(self.directory / PAGE),
            }

    def _share(self, name: str, counts: dict[str, int], limits: Mapping[str, float], now: float) -> dict[str, Any]:
        """Return a provider's submit rate and limit, in submits a second."""
        meter = self._gauges.setdefault(name, Gauge())
        meter.look(counts, now)
        return {"name": name, "rate": round(meter.submits, 2), "limit": limits.get(name)}


def _stamps(state: Path) -> list[float]:
    """Return the times of the last write to the database and to its log, 0 for a missing file."""
    found = []
    for name in ("state.db", "state.db-wal"):
        try:
            found.append((state / name).stat().st_mtime)
        except OSError:
            found.append(0.0)
    return found


class Watch:
    """Live state of the jobs below a directory.

    The jobs are scanned only while a browser is connected.
    Implements `net.web.PageSource`.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._clock = root, Clock()
        self._jobs: dict[str, _Watched] = {}
        #: by job, the number of the scan that found its latest change
        self._new: dict[str, int] = {}
        #: number of jobs that are not shown
        self._more = 0
        self._looks = 0
        #: number of open event streams
        self._watchers = 0
        self._closed = False
        #: set at the next change, then replaced
        self._news = asyncio.Event()
        self._eye: asyncio.Task[None] | None = None

    def page(self) -> bytes:
        """Return the HTML page."""
        return live_page(str(self._root.resolve().name or "/"))

    def file(self, job: str, path: str) -> Path | None:
        """Return the path of an output or of a part of the gallery, or None for everything else.

        Hidden files and files in other directories are never served.
        """
        shown_job = self._jobs.get(job)
        folder, _, name = path.rpartition("/")
        if shown_job is None or folder not in {"", FOLDER} or name.startswith(".") or "\0" in name:
            return None
        found = shown_job.directory / folder / name
        suffix = found.suffix.lower()
        is_data = folder == FOLDER and name.startswith("data-") and suffix == ".js"
        if not (suffix in _SHOWN or is_data or (path == PAGE and is_ours(found))):
            return None
        return None if (folder and found.parent.is_symlink()) or not found.is_file() else found

    async def events(self) -> AsyncIterator[bytes]:
        """Yield every job, then each changed job, as server-sent events.

        Yields a comment if nothing changes.
        """
        self._watchers += 1
        sent = -1
        try:
            while not self._closed:
                scanner = self._eye = self._eye or asyncio.create_task(self._watching())
                if scanner.done():
                    self._eye = None
                    scanner.result()  # a bug must not look like an idle job: the stream ends with its exception
                change, scans = self._news, self._looks
                changed = [self._jobs[name].told for name, scan in self._new.items() if scan > sent]
                sent = scans
                known = {"known": list(self._new), "more": self._more}
                yield _event("jobs", {"now": self._clock.now(), "jobs": changed, **known})
                try:
                    await asyncio.wait_for(change.wait(), _BEAT)
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            self._watchers -= 1
            if not self._watchers and self._eye is not None:
                self._eye.cancel()
                self._eye = None

    def close(self) -> None:
        """End every event stream."""
        self._closed = True
        self._news.set()

    async def _watching(self) -> None:
        """Scan the jobs again and again, and wake the event streams after a change."""
        while True:
            began = self._clock.now()
            jobs, changed, self._more = await asyncio.to_thread(self._look, began)
            gone = self._new.keys() - jobs.keys()
            if changed or gone:
                self._looks += 1
                self._jobs = jobs
                self._new.update(dict.fromkeys(changed, self._looks))
                for name in gone:
                    del self._new[name]
                self._news.set()
                self._news = asyncio.Event()
            await asyncio.sleep(max(_TICK, _SHARE * (self._clock.now() - began)))

    def _look(self, now: float) -> tuple[dict[str, _Watched], list[str], int]:
        """Return the jobs that changed last, the ids of those that changed now, and the number of all others."""
        found = {_name(directory): directory for directory in jobs_below(self._root)}
        latest = sorted(found, key=lambda name: -max(_stamps(found[name] / ".runner")))[:_MOST]
        jobs = {name: self._jobs.get(name) or _Watched(found[name], name) for name in latest}
        return jobs, [name for name, job in jobs.items() if job.look(now)], len(found) - len(jobs)


def _name(directory: Path) -> str:
    """Return the id of a job in the page's URLs."""
    return hashlib.sha256(str(directory).encode(errors="surrogateescape")).hexdigest()[:12]


def _event(kind: str, data: dict[str, Any]) -> bytes:
    """Return a server-sent event with JSON data."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(data))


def serve(root: Path, port: int, key: str, on_started: Callable[[str], None]) -> None:
    """Serve the page on loopback until Ctrl-C.

    Calls `on_started` with its address.
    Raises ConfigError if the web server is not installed or the port is taken.
    """
    try:
        from runner.net import web  # noqa: PLC0415 - a web server that only this verb needs
    except ImportError as error:
        hint = 'pip install "genrunner[web]"'
        raise ConfigError(f"the live page needs a web server ({error})", hint=hint) from None
    sock = web.listening(port)
    address = f"http://{web.HOST}:{sock.getsockname()[1]}/{key}/"
    web.serve(Watch(root), key, sock, lambda: on_started(address))
