"""`gallery`: write the page of a job from its state, at the end of every run and whenever the user asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.app.pretending import pretends
from runner.app.units import unit_of
from runner.pipeline.clock import Clock
from runner.report.gallery import page, place
from runner.report.gallery.darkroom import Developed, develop, wanted
from runner.store.view import view

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runner.report.gallery.darkroom import Original
    from runner.settings import Settings
    from runner.store.view import View


@dataclass(frozen=True, slots=True)
class Shown:
    """Path and counts of a written page."""

    page: Path
    #: tasks on the page
    tasks: int
    #: tasks of the job
    total: int
    thumbnails: Developed


def show(directory: Path, *, now: float, unit: str, has_time: Callable[[], bool], light: int = 0) -> Shown:
    """Make thumbnails as long as `has_time()` is true, then write the page.

    No thumbnails are made if the files need at most `light_bytes` together. `now` is in seconds since the epoch.
    Memory is bounded: of a large job the newest tasks are shown.
    Raises NoSuchJob, UsageError, StateError or OSError.
    """
    state = directory / ".runner"
    with view(state) as job:
        gallery = place.taken(directory)
        sources = _wanted(job, gallery.made(), light) if has_time() else []
    # outside of the blocks, because no child process may start while a database is open
    thumbnails = develop(directory, gallery.folder, sources, has_time)
    with view(state) as job, gallery.turn(), job.at_once():
        counts = job.counts()
        total = sum(counts.values())
        data = {
            "job": job.name() or directory.resolve().name,
            "made": now,
            "counts": counts,
            "total": total,
            "cost": job.spent(),
            "unit": unit,
            "pretend": pretends(state),
        }
        tasks = page.write(gallery, job.newest(page.MOST), data)
    return Shown(gallery.page, tasks, total, thumbnails)


def look(directory: Path, settings: Settings) -> Shown:
    """Write the page with every thumbnail, without a time limit.

    Raises what `write_gallery` raises.
    """
    with view(directory / ".runner") as job:
        unit = unit_of(job.providers(), settings)
    return show(directory, now=Clock().now(), unit=unit, has_time=lambda: True)


def _wanted(job: View, made: set[str], light_bytes: int) -> list[Original]:
    """Return the files without a thumbnail, or none if they need at most `light_bytes` together.

    The list is read at once, because a read transaction of minutes would let the database's log grow.
    """
    outputs = (output for row in job.newest(page.MOST) for output in row["outputs"])
    found = list(wanted(outputs, made))
    return found if sum(source.bytes for source in found) > light_bytes else []
