"""A job in Prometheus' text format, for the textfile collector of its node exporter."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.lifecycle.task import State
from runner.report.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

#: it may have been paid for, and nobody knows yet
_UNSETTLED = (State.SUBMITTING, State.IN_DOUBT, State.HELD)
_ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


@dataclass(frozen=True, slots=True)
class Sample:
    """What is known of a job at one moment; what is None is left out."""

    job: str
    #: seconds since the epoch
    at: float
    running: bool
    counts: Mapping[str, int]
    #: in the provider's unit, with what is in doubt
    cost: float | None = None
    #: seconds since the oldest task became ready whose files are not here yet; its links will expire
    oldest_ready: float = 0.0
    exit_code: int | None = None
    #: of this run or the latest
    submitted: int | None = None
    adopted: int | None = None
    downloaded: int | None = None


def text(sample: Sample) -> str:
    """The whole file."""
    return "".join(_lines(sample))


def _lines(sample: Sample) -> Iterator[str]:
    for name, about, value in _gauges(sample):
        if value is None:
            continue
        yield f"# HELP runner_{name} {about}\n# TYPE runner_{name} gauge\n"
        for labels, number in value.items() if isinstance(value, dict) else [("", value)]:
            yield f'runner_{name}{{job="{sample.job.translate(_ESCAPED)}"{labels}}} {number:.15g}\n'


def _gauges(sample: Sample) -> Iterator[tuple[str, str, float | dict[str, float] | None]]:
    counts = sample.counts
    yield "tasks", "Tasks by state.", {f',state="{state}"': counts.get(state, 0) for state in State}
    unsettled = sum(counts.get(state, 0) for state in _UNSETTLED)
    yield "unsettled_tasks", "Tasks that may have been paid for, and nobody knows yet.", unsettled
    yield "cost", "What the job has cost, in the provider's unit; what is in doubt counts.", sample.cost
    yield "oldest_ready_seconds", "Age of the oldest result that is not downloaded; links expire.", sample.oldest_ready
    yield "running", "Whether a run is going on.", sample.running
    yield "exit_code", "How the latest run ended; absent while one goes on.", sample.exit_code
    yield "last_run_timestamp_seconds", "When this file was written.", sample.at
    yield "run_submitted_tasks", "Tasks that the latest run had accepted.", sample.submitted
    yield "run_adopted_tasks", "Tasks that the latest run found again after a lost answer.", sample.adopted
    yield "run_downloaded_files", "Files that the latest run brought home.", sample.downloaded


def write(path: Path, sample: Sample) -> None:
    """Put a sample into a file that a collector may read at any moment: whole or not at all, mode 0644."""
    with whole_file(path) as file:
        os.fchmod(file.fileno(), 0o644)  # the collector is another user, whatever this one's umask
        file.write(text(sample).encode("utf-8", "backslashreplace"))
