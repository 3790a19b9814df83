"""`gallery`: write the page of a job from its state, at the end of every run and whenever the user asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.app.embedded_sandbox import is_sandbox
from runner.app.issues import cost_unit
from runner.report.gallery import page
from runner.report.gallery.thumbnails import ThumbnailCounts, make_thumbnails, missing_thumbnails
from runner.scheduler.clock import Clock
from runner.store.read_only import open_read_only

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runner.report.gallery.thumbnails import ThumbnailSource
    from runner.settings import Settings
    from runner.store.read_only import ReadOnlyQueries


@dataclass(frozen=True, slots=True)
class GalleryResult:
    """Path and counts of a written page."""

    page: Path
    #: tasks on the page
    tasks: int
    #: tasks of the job
    total: int
    thumbnails: ThumbnailCounts


def write_gallery(
    directory: Path, *, now: float, unit: str, has_time: Callable[[], bool], light_bytes: int = 0
) -> GalleryResult:
    """Make thumbnails as long as `has_time()` is true, then write the page.

    No thumbnails are made if the files need at most `light_bytes` together. `now` is in seconds since the epoch.
    Memory is bounded: of a large job the newest tasks are shown.
    Raises NoSuchJob, UsageError, StateError or OSError.
    """
    state = directory / ".runner"
    with open_read_only(state) as job:
        gallery = page.open_gallery(directory)
        sources = _missing_thumbnails(job, gallery.file_names(), light_bytes) if has_time() else []
    # outside of the blocks, because no child process may start while a database is open
    thumbnails = make_thumbnails(directory, gallery.folder, sources, has_time)
    with open_read_only(state) as job, gallery.lock(), job.snapshot():
        counts = job.counts()
        total = sum(counts.values())
        data = {
            "job": job.name() or directory.resolve().name,
            "made": now,
            "counts": counts,
            "total": total,
            "cost": job.spent(),
            "unit": unit,
            "pretend": is_sandbox(state),
        }
        tasks = page.write(gallery, job.newest_results(page.MAX_TASKS), data)
    return GalleryResult(gallery.page, tasks, total, thumbnails)


def write_full_gallery(directory: Path, settings: Settings) -> GalleryResult:
    """Write the page with every thumbnail, without a time limit.

    Raises what `write_gallery` raises.
    """
    with open_read_only(directory / ".runner") as job:
        unit = cost_unit(job.bound_providers(), settings)
    return write_gallery(directory, now=Clock().now(), unit=unit, has_time=lambda: True)


def _missing_thumbnails(job: ReadOnlyQueries, made: set[str], light_bytes: int) -> list[ThumbnailSource]:
    """Return the files without a thumbnail, or none if they need at most `light_bytes` together.

    The list is read at once, because a read transaction of minutes would let the database's log grow.
    """
    outputs = (output for row in job.newest_results(page.MAX_TASKS) for output in row["outputs"])
    found = list(missing_thumbnails(outputs, made))
    return found if sum(source.bytes for source in found) > light_bytes else []
