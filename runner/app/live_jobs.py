"""`serve`: a live page of all jobs below a directory, which pushes changes to every open browser."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

import orjson

from runner.app.embedded_sandbox import is_sandbox
from runner.app.job_directories import job_directories
from runner.errors import ConfigError, RunnerError
from runner.report.gallery.page import FOLDER, PAGE, is_ours, live_page
from runner.report.run_info import read_run_info, wait_text
from runner.report.stats import RateMeter
from runner.scheduler.clock import Clock
from runner.store.lock import is_run_active
from runner.store.read_only import open_read_only
from runner.store.task_rows import SHARD_NAME

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

#: seconds between two scans at least, and the pause after a scan as a multiple of its duration
_SCAN_INTERVAL, _SCAN_PAUSE_FACTOR = 0.5, 5
#: seconds without a change after which a comment keeps the connection alive
_HEARTBEAT = 15.0
#: jobs that are shown, latest changes first, with files and errors of each
_MAX_JOBS, _MAX_FILES, _MAX_ERRORS = 50, 12, 5
_SERVED_SUFFIXES = frozenset({".png", ".jpg", ".webp", ".gif", ".avif", ".mp4", ".webm", ".mov", ".wav", ".mp3"})


class _WatchedJob:
    """One job with the latest snapshot of its state."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self.name = directory, name
        self.snapshot: dict[str, Any] = {}
        #: what changes with every write of the job's database, and whether a run is on
        self._last_mark: tuple[object, ...] = ()
        self._meter = RateMeter()
        self._meters: dict[str, RateMeter] = {}

    def refresh(self, now: float) -> bool:
        """Read the job's state if it may have changed, and return True if the snapshot is new."""
        state = self.directory / ".runner"
        mark = (*_write_times(state), is_run_active(state))
        if mark == self._last_mark and not mark[-1]:
            return False
        self._last_mark = mark
        try:
            snapshot = self._read_snapshot(state, now, running=bool(mark[-1]))
        except (RunnerError, OSError) as error:
            if mark[-1] and not self.snapshot:
                return False  # its first run is just making the database
            snapshot = {"id": self.name, "job": self.directory.name, "trouble": str(error)}
        changed = snapshot != self.snapshot
        self.snapshot = snapshot
        return changed

    def _read_snapshot(self, state: Path, now: float, *, running: bool) -> dict[str, Any]:
        """Return the job's state as the JSON object that the page shows."""
        info = read_run_info(state)
        with open_read_only(state) as job, job.snapshot():
            counts, by_provider = job.counts(), job.counts_by_provider()
            self._meter.observe(counts, now)
            eta = self._meter.eta(counts) if running else None
            return {
                "id": self.name,
                "job": job.name() or self.directory.resolve().name,
                "directory": str(self.directory),
                "running": running,
                "pretend": is_sandbox(state),
                "changed": max(_write_times(state)),
                "counts": counts,
                "total": sum(counts.values()),
                "eta": None if eta is None else round(eta),
                "wait": wait_text(info.waits, counts) if running else "",
                "providers": [
                    self._provider_share(name, share, info.limits, now) for name, share in by_provider.items()
                ],
                "cost": job.spent(),
                "max_cost": info.max_cost,
                "unit": info.unit,
                "faults": [
                    {name: group[name] for name in ("state", "reason", "message", "count")}
                    for group in job.error_groups()[:_MAX_ERRORS]
                ],
                "files": job.latest_files(_MAX_FILES),
                "page": is_ours(self.directory / PAGE),
            }

    def _provider_share(
        self, name: str, counts: dict[str, int], limits: Mapping[str, float], now: float
    ) -> dict[str, Any]:
        """Return a provider's submit rate and limit, in submits a second."""
        meter = self._meters.setdefault(name, RateMeter())
        meter.observe(counts, now)
        return {"name": name, "rate": round(meter.submit_rate, 2), "limit": limits.get(name)}


def _write_times(state: Path) -> list[float]:
    """Return the times of the last write to the database and to its log, 0 for a missing file."""
    found = []
    for name in ("state.db", "state.db-wal"):
        try:
            found.append((state / name).stat().st_mtime)
        except OSError:
            found.append(0.0)
    return found


class LiveJobs:
    """Live state of the jobs below a directory.

    The jobs are scanned only while a browser is connected.
    Implements `net.web.PageSource`.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._clock = root, Clock()
        self._jobs: dict[str, _WatchedJob] = {}
        #: by job, the number of the scan that found its latest change
        self._changed_in: dict[str, int] = {}
        #: number of jobs that are not shown
        self._hidden = 0
        self._scans = 0
        #: number of open event streams
        self._viewers = 0
        self._closed = False
        #: set at the next change, then replaced
        self._change = asyncio.Event()
        self._scanner: asyncio.Task[None] | None = None

    def page(self) -> bytes:
        """Return the HTML page."""
        return live_page(str(self._root.resolve().name or "/"))

    def file(self, job: str, path: str) -> Path | None:
        """Return the path of an output or of a part of the gallery, or None for everything else.

        Hidden files and files in other directories are never served.
        """
        shown_job = self._jobs.get(job)
        folder, _, name = path.rpartition("/")
        is_served = folder in {"", FOLDER} or SHARD_NAME.fullmatch(folder) is not None
        if shown_job is None or not is_served or name.startswith(".") or "\0" in name:
            return None
        found = shown_job.directory / folder / name
        suffix = found.suffix.lower()
        is_data = folder == FOLDER and name.startswith("data-") and suffix == ".js"
        if not (suffix in _SERVED_SUFFIXES or is_data or (path == PAGE and is_ours(found))):
            return None
        return None if (folder and found.parent.is_symlink()) or not found.is_file() else found

    async def events(self) -> AsyncIterator[bytes]:
        """Yield every job, then each changed job, as server-sent events.

        Yields a comment if nothing changes.
        """
        self._viewers += 1
        sent = -1
        try:
            while not self._closed:
                scanner = self._scanner = self._scanner or asyncio.create_task(self._scan_repeatedly())
                if scanner.done():
                    self._scanner = None
                    scanner.result()  # a bug must not look like an idle job: the stream ends with its exception
                change, scans = self._change, self._scans
                changed = [self._jobs[name].snapshot for name, scan in self._changed_in.items() if scan > sent]
                sent = scans
                known = {"known": list(self._changed_in), "more": self._hidden}
                yield _server_sent_event("jobs", {"now": self._clock.now(), "jobs": changed, **known})
                try:
                    await asyncio.wait_for(change.wait(), _HEARTBEAT)
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            self._viewers -= 1
            if not self._viewers and self._scanner is not None:
                self._scanner.cancel()
                self._scanner = None

    def close(self) -> None:
        """End every event stream."""
        self._closed = True
        self._change.set()

    async def _scan_repeatedly(self) -> None:
        """Scan the jobs again and again, and wake the event streams after a change."""
        while True:
            began = self._clock.now()
            jobs, changed, self._hidden = await asyncio.to_thread(self._scan, began)
            gone = self._changed_in.keys() - jobs.keys()
            if changed or gone:
                self._scans += 1
                self._jobs = jobs
                self._changed_in.update(dict.fromkeys(changed, self._scans))
                for name in gone:
                    del self._changed_in[name]
                self._change.set()
                self._change = asyncio.Event()
            await asyncio.sleep(max(_SCAN_INTERVAL, _SCAN_PAUSE_FACTOR * (self._clock.now() - began)))

    def _scan(self, now: float) -> tuple[dict[str, _WatchedJob], list[str], int]:
        """Return the jobs that changed last, the ids of those that changed now, and the number of all others."""
        found = {_job_id(directory): directory for directory in job_directories(self._root)}
        latest = sorted(found, key=lambda name: -max(_write_times(found[name] / ".runner")))[:_MAX_JOBS]
        jobs = {name: self._jobs.get(name) or _WatchedJob(found[name], name) for name in latest}
        return jobs, [name for name, job in jobs.items() if job.refresh(now)], len(found) - len(jobs)


def _job_id(directory: Path) -> str:
    """Return the id of a job in the page's URLs."""
    return hashlib.sha256(str(directory).encode(errors="surrogateescape")).hexdigest()[:12]


def _server_sent_event(kind: str, data: dict[str, Any]) -> bytes:
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
    sock = web.listen(port)
    address = f"http://{web.HOST}:{sock.getsockname()[1]}/{key}/"
    web.serve(LiveJobs(root), key, sock, lambda: on_started(address))
