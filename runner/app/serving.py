"""The live page of all jobs below a directory: looked at, not asked for; what changed is pushed to whoever watches."""

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
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

#: seconds between two looks, at the least; a look at large jobs may take a fifth of the time
_TICK, _SHARE = 0.5, 5
#: seconds after which a silent line says that it is there
_BEAT = 15.0
#: jobs that are shown, those that changed last; files and faults of each
_MOST, _FILES, _FAULTS = 50, 12, 5
_SHOWN = frozenset({".png", ".jpg", ".webp", ".gif", ".avif", ".mp4", ".webm", ".mov", ".wav", ".mp3"})


def jobs_below(root: Path) -> Iterator[Path]:
    """Every job directory, down to the third level; the one itself counts."""
    for depth in (".", "*", "*/*", "*/*/*"):
        yield from (state.parent.parent for state in sorted(root.glob(f"{depth}/.runner/state.db")))


class _Watched:
    """One job, and what was seen of it last."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self.name = directory, name
        self.told: dict[str, Any] = {}
        self._mark: tuple[object, ...] = ()
        self._gauge = Gauge()
        self._gauges: dict[str, Gauge] = {}

    def look(self, now: float) -> bool:
        """Whether anything is new."""
        state = self.directory / ".runner"
        mark = (*_stamps(state), runs(state))
        if mark == self._mark and not mark[-1]:
            return False
        self._mark = mark
        try:
            told = self._seen(state, now, running=bool(mark[-1]))
        except (RunnerError, OSError) as error:
            if mark[-1] and not self.told:
                return False  # its first run is just making it
            told = {"id": self.name, "job": self.directory.name, "trouble": str(error)}
        changed = told != self.told
        self.told = told
        return changed

    def _seen(self, state: Path, now: float, *, running: bool) -> dict[str, Any]:
        facts = facts_file.read(state)
        with view(state) as seen, seen.at_once():
            counts, shares = seen.counts(), seen.counts_by_provider()
            self._gauge.look(counts, now)
            return {
                "id": self.name,
                "job": seen.name() or self.directory.resolve().name,
                "directory": str(self.directory),
                "running": running,
                "pretend": pretends(state),
                "changed": max(_stamps(state)),
                "counts": counts,
                "total": sum(counts.values()),
                "eta": _round(self._gauge.eta(counts)) if running else None,
                "providers": [self._share(name, share, facts.limits, now) for name, share in shares.items()],
                "cost": seen.spent(),
                "max_cost": facts.max_cost,
                "unit": facts.unit,
                "faults": [
                    {name: fault[name] for name in ("state", "reason", "message", "count")}
                    for fault in seen.faults()[:_FAULTS]
                ],
                "files": seen.latest(_FILES),
                "page": is_ours(self.directory / PAGE),
            }

    def _share(self, name: str, counts: dict[str, int], limits: Any, now: float) -> dict[str, Any]:
        gauge = self._gauges.setdefault(name, Gauge())
        gauge.look(counts, now)
        return {"name": name, "rate": round(gauge.submits, 2), "limit": limits.get(name)}


def _round(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)


def _stamps(state: Path) -> list[float]:
    """When the database was written."""
    found = []
    for name in ("state.db", "state.db-wal"):
        try:
            found.append((state / name).stat().st_mtime)
        except OSError:
            found.append(0.0)
    return found


class Watch:
    """Implements `net.web.Source`: looks while somebody watches, and pushes what is new."""

    def __init__(self, root: Path) -> None:
        self._root, self._clock = root, Clock()
        self._jobs: dict[str, _Watched] = {}
        #: when each job was new, counted in looks
        self._new: dict[str, int] = {}
        #: jobs that are there and not shown
        self._more = 0
        self._looks = 0
        self._watchers = 0
        self._closed = False
        self._news = asyncio.Event()
        self._eye: asyncio.Task[None] | None = None

    def page(self) -> bytes:
        """The page itself."""
        return live_page(str(self._root.resolve().name or "/"))

    def file(self, job: str, path: str) -> Path | None:
        """An output, or a part of the gallery; nothing that begins with a dot, nothing deeper, nothing else."""
        watched = self._jobs.get(job)
        folder, _, name = path.rpartition("/")
        if watched is None or folder not in {"", FOLDER} or name.startswith(".") or "\0" in name:
            return None
        found = watched.directory / folder / name
        suffix = found.suffix.lower()
        is_data = folder == FOLDER and name.startswith("data-") and suffix == ".js"
        if not (suffix in _SHOWN or is_data or (path == PAGE and is_ours(found))):
            return None
        return None if (folder and found.parent.is_symlink()) or not found.is_file() else found

    async def events(self) -> AsyncIterator[bytes]:
        """Every job, then each that changes; a comment when there is nothing to say."""
        self._watchers += 1
        told = -1
        try:
            while not self._closed:
                eye = self._eye = self._eye or asyncio.create_task(self._watching())
                if eye.done():
                    self._eye = None
                    eye.result()  # a bug must not look like a job at rest: the stream ends, and says why
                news, looks = self._news, self._looks
                fresh = [self._jobs[name].told for name, when in self._new.items() if when > told]
                told = looks
                known = {"known": list(self._new), "more": self._more}
                yield _event("jobs", {"now": self._clock.now(), "jobs": fresh, **known})
                try:
                    await asyncio.wait_for(news.wait(), _BEAT)
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            self._watchers -= 1
            if not self._watchers and self._eye is not None:
                self._eye.cancel()
                self._eye = None

    def close(self) -> None:
        """No more events."""
        self._closed = True
        self._news.set()

    async def _watching(self) -> None:
        while True:
            began = self._clock.now()
            jobs, fresh, self._more = await asyncio.to_thread(self._look, began)
            gone = self._new.keys() - jobs.keys()
            if fresh or gone:
                self._looks += 1
                self._jobs = jobs
                self._new.update(dict.fromkeys(fresh, self._looks))
                for name in gone:
                    del self._new[name]
                self._news.set()
                self._news = asyncio.Event()
            await asyncio.sleep(max(_TICK, _SHARE * (self._clock.now() - began)))

    def _look(self, now: float) -> tuple[dict[str, _Watched], list[str], int]:
        """The jobs that changed last, names of those that changed now, and how many others there are."""
        found = {_name(directory): directory for directory in jobs_below(self._root)}
        latest = sorted(found, key=lambda name: -max(_stamps(found[name] / ".runner")))[:_MOST]
        jobs = {name: self._jobs.get(name) or _Watched(found[name], name) for name in latest}
        return jobs, [name for name, job in jobs.items() if job.look(now)], len(found) - len(jobs)


def _name(directory: Path) -> str:
    """What a job is called in an address."""
    return hashlib.sha256(str(directory).encode(errors="surrogateescape")).hexdigest()[:12]


def _event(kind: str, told: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(told))


def serve(root: Path, port: int, key: str, told: Any) -> None:
    """Serve until Ctrl-C; `told` is called with the address. Raises ConfigError."""
    try:
        from runner.net import web  # noqa: PLC0415 - a web server that only this verb needs
    except ImportError as error:
        hint = 'pip install "genrunner[web]"'
        raise ConfigError(f"the live page needs a web server ({error})", hint=hint) from None
    sock = web.listening(port)
    address = f"http://{web.HOST}:{sock.getsockname()[1]}/{key}/"
    web.serve(Watch(root), key, sock, lambda: told(address))
