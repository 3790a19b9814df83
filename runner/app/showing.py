"""The page of a job, made from its state: at the end of every run, and whenever somebody asks for it."""

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
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from runner.report.gallery.darkroom import Original
    from runner.settings import Settings
    from runner.store.view import View


@dataclass(frozen=True, slots=True)
class Shown:
    """What was made."""

    page: Path
    #: tasks on it, and tasks of the job
    tasks: int
    total: int
    thumbnails: Developed


def show(directory: Path, *, now: float, unit: str, has_time: Callable[[], bool], light: int = 0) -> Shown:
    """Thumbnails as long as there is time, then the page; raises NoSuchJob, UsageError, StateError, OSError.

    None are made where the files themselves weigh no more than `light` bytes together. `now`: seconds since the epoch.
    Memory is bounded: of a large job the newest tasks are shown.
    """
    with view(directory / ".runner") as seen:
        ours = place.taken(directory)
        originals = _wanted(seen, ours.made(), light) if has_time() else []
    done = develop(directory, ours.folder, originals, has_time)  # no process is begun while a database is open (FP13)
    with view(directory / ".runner") as seen, ours.turn(), seen.at_once():
        counts = seen.counts()
        facts = _facts(directory, seen, counts, now=now, unit=unit)
        tasks = page.write(ours, seen.newest(page.MOST), facts)
    return Shown(ours.page, tasks, sum(counts.values()), done)


def look(directory: Path, settings: Settings) -> Shown:
    """The page with every thumbnail, however long it takes; raises what `show` raises."""
    with view(directory / ".runner") as seen:
        unit = unit_of(seen.providers(), settings)
    return show(directory, now=Clock().now(), unit=unit, has_time=lambda: True)


def _wanted(seen: View, made: set[str], light: int) -> list[Original]:
    """All of them at once: who reads a database for minutes lets its log grow."""
    outputs = (output for row in seen.newest(page.MOST) for output in row["outputs"])
    found = list(wanted(outputs, made))
    return found if sum(original.bytes for original in found) > light else []


def _facts(directory: Path, seen: View, counts: Mapping[str, int], now: float, unit: str) -> dict[str, object]:
    return {
        "job": seen.name() or directory.resolve().name,
        "made": now,
        "counts": counts,
        "total": sum(counts.values()),
        "cost": seen.spent(),
        "unit": unit,
        "pretend": pretends(directory / ".runner"),
    }
