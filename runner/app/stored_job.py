"""A job directory opened for reading: its tasks with the fields of results.jsonl."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path  # noqa: TC003 - part of a public value
from typing import TYPE_CHECKING, Any

from runner.errors import UsageError
from runner.report.results import result_dict
from runner.store.read_only import open_read_only
from runner.tasks.models import State, TaskError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: tasks that are read from the store at once
_BATCH = 500


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A complete, checked file of a task."""

    path: Path
    #: path relative to the job directory
    file: str
    bytes: int
    sha256: str
    media_type: str


@dataclass(frozen=True, slots=True)
class TaskResult:
    """A task of a job, with the fields of a line of results.jsonl."""

    key: str
    #: position in the manifest, from 1; None: it is no longer in the manifest
    index: int | None
    repeat: int
    vars: Mapping[str, Any]
    provider: str
    model: str
    #: parameters under the provider's own names
    request: Mapping[str, Any]
    state: State
    remote_id: str | None
    outputs: tuple[OutputFile, ...]
    #: why it did not succeed; all fields are None if nothing went wrong
    error: TaskError
    #: number of requests that may have been paid for
    attempts: int
    #: most that it can have cost, in the provider's unit; None: unknown
    cost: float | None
    #: directory of another job that has paid for it, in which case this one has not; None: this one
    bought_in: str | None
    #: what its state rests on, e.g. why it was bought once more; None: the answer to its submit
    evidence: str | None
    queued_at: datetime | None
    submitted_at: datetime | None
    finished_at: datetime | None
    #: the line of results.jsonl
    _line: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the line of results.jsonl as an object, e.g. as a record of a data frame."""
        return dict(self._line)


class StoredJob:
    """A job directory, opened for reading. Works while a run is on."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __repr__(self) -> str:
        return f"<StoredJob in {self.directory}>"

    @property
    def name(self) -> str:
        """Return the name of the job."""
        with open_read_only(self.directory / ".runner") as queries:
            return queries.name()

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of tasks by state."""
        with open_read_only(self.directory / ".runner") as queries:
            return queries.counts()

    @property
    def cost(self) -> float | None:
        """Return the most that the job can have cost, or None if a task was sent at an unknown price."""
        with open_read_only(self.directory / ".runner") as queries:
            return queries.spent()

    def tasks(self, state: str | None = None) -> Iterator[TaskResult]:
        """Yield the tasks in manifest order, or only those in a state.

        The job may change meanwhile, e.g. by `resolve`. Raises UsageError if there is no such state.
        """
        if state is not None and state not in set(State):
            raise UsageError(f"there is no state {state!r}", hint=f"One of {', '.join(State)}.")
        return self._tasks(state)

    def _tasks(self, state: str | None) -> Iterator[TaskResult]:
        # in batches, so that no read transaction stays open while the caller works
        with open_read_only(self.directory / ".runner") as queries:
            ids = queries.result_ids(state)
        for start in range(0, len(ids), _BATCH):
            with open_read_only(self.directory / ".runner") as queries:
                rows = list(queries.results_of(ids[start : start + _BATCH]))
            for row in rows:
                if state is None or row["state"] == state:
                    yield _task_result(row, self.directory)


def _task_result(row: Mapping[str, Any], directory: Path) -> TaskResult:
    line = result_dict(row)
    return TaskResult(
        **{
            **line,
            "state": State(line["state"]),
            "outputs": tuple(OutputFile(directory / output["file"], **output) for output in line["outputs"]),
            "error": TaskError(**line["error"]),
            **{name: _datetime(line[name]) for name in ("queued_at", "submitted_at", "finished_at")},
        },
        _line=line,
    )


def _datetime(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
