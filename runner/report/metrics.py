"""Write a job's metrics in Prometheus text format, for the textfile collector of the node exporter."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.files import atomic_write
from runner.tasks.models import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

#: states of tasks that may have been paid for, which is not yet known
_UNSETTLED = (State.SUBMITTING, State.IN_DOUBT, State.HELD)
_LABEL_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


@dataclass(frozen=True, slots=True)
class JobMetrics:
    """Metrics of a job at one moment; fields that are None are left out of the file."""

    job: str
    #: time of the file, seconds since the epoch
    written_at: float
    running: bool
    counts: Mapping[str, int]
    #: cost in the provider's unit, tasks in doubt included
    cost: float | None = None
    #: age in seconds of the oldest result that is not downloaded; its links will expire
    oldest_ready: float = 0.0
    exit_code: int | None = None
    #: counts of the present or latest run
    submitted: int | None = None
    adopted: int | None = None
    downloaded: int | None = None


def render(metrics: JobMetrics) -> str:
    """Return the content of the metrics file."""
    job = metrics.job.translate(_LABEL_ESCAPES)
    lines = []
    for name, about, value in _gauges(metrics):
        if value is None:
            continue
        lines.append(f"# HELP runner_{name} {about}\n# TYPE runner_{name} gauge\n")
        for labels, number in value.items() if isinstance(value, dict) else [("", value)]:
            lines.append(f'runner_{name}{{job="{job}"{labels}}} {number:.15g}\n')
    return "".join(lines)


def _gauges(metrics: JobMetrics) -> Iterator[tuple[str, str, float | dict[str, float] | None]]:
    counts = metrics.counts
    yield "tasks", "Tasks by state.", {f',state="{state}"': counts.get(state, 0) for state in State}
    unsettled = sum(counts.get(state, 0) for state in _UNSETTLED)
    yield "unsettled_tasks", "Tasks that may have been paid for, and nobody knows yet.", unsettled
    yield "cost", "What the job has cost, in the provider's unit; what is in doubt counts.", metrics.cost
    yield "oldest_ready_seconds", "Age of the oldest result that is not downloaded; links expire.", metrics.oldest_ready
    yield "running", "Whether a run is going on.", metrics.running
    yield "exit_code", "How the latest run ended; absent while one goes on.", metrics.exit_code
    yield "last_run_timestamp_seconds", "When this file was written.", metrics.written_at
    yield "run_submitted_tasks", "Tasks that the latest run had accepted.", metrics.submitted
    yield "run_adopted_tasks", "Tasks that the latest run found again after a lost answer.", metrics.adopted
    yield "run_downloaded_files", "Files that the latest run brought home.", metrics.downloaded


def write(path: Path, metrics: JobMetrics) -> None:
    """Write the metrics file atomically with mode 0644, since a collector may read it at any moment; raises OSError."""
    with atomic_write(path) as file:
        with suppress(PermissionError):  # FAT and some network disks keep no permissions
            os.fchmod(file.fileno(), 0o644)  # the collector runs as another user, so the umask must not apply
        file.write(render(metrics).encode("utf-8", "backslashreplace"))
