"""When results.jsonl is written: at intervals during a run, and at its end as far as there is time.

What changed is counted in the state, so that writing costs a copy of the file and the lines of the changed tasks. After
a signal a service manager waits only some seconds. Then the file is written if half a second is enough, and otherwise
stays as it was last written, which the summary says.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from runner.errors import DiskError, RunnerError
from runner.report.results_file import ResultsIndex, UnfitIndexError, write_all, write_changes
from runner.store.merged_rows import MergedRows
from runner.store.read_only import open_read_only
from runner.store.writer import SupersededError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from runner.app.observer import Observer
    from runner.report.results_file import OnStep
    from runner.store.store import ResultsState, Store

#: seconds to the first writing during a run, which may have to write every line, and least seconds between two
_FIRST_PAUSE, _INTERVAL = 10.0, 60.0
#: part of the time that writing may take during a run
_SHARE = 0.01
#: how long a step rests, in times of what it took, so that submits and downloads go on beside it
_REST = 2.0
#: seconds of a step after which it rests no longer
_LONGEST_STEP = 0.2
#: seconds that writing may take after a signal, and those of them that it may take to begin
_HURRY_SECONDS, _HURRY_BEGIN_SECONDS = 0.5, 0.15
#: changed tasks from which on every line is written, and the part of all tasks
_MOST_CHANGED, _MOST_CHANGED_PART = 200_000, 0.5


class _OutOfTimeError(Exception):
    """Writing was given up, since it would take too long or the run ends."""


class ResultsWriter:
    """Writer of one job's results.jsonl during a run, which holds the job's lock.

    `directory` is the job's, `monotonic` a clock in seconds.
    """

    def __init__(self, store: Store, directory: Path, state_directory: Path, monotonic: Callable[[], float]) -> None:
        self._store, self._path, self._state_directory = store, directory / "results.jsonl", state_directory
        self._index_path = state_directory / "results.index"
        self._monotonic = monotonic

    async def finish(self, *, in_hurry: bool) -> str:
        """Write the results at the end of a run, and return why they are not up to date, or an empty string.

        Only `in_hurry` are they left as they were, if it would take too long. Raises DiskError.
        """
        began = self._monotonic()

        def check_time(part: float) -> None:
            # after the first steps it is known how long all of them will take
            if in_hurry and self._monotonic() - began > _HURRY_BEGIN_SECONDS + _HURRY_SECONDS * part:
                raise _OutOfTimeError

        try:
            await self._write(check_time)
        except _OutOfTimeError:
            return "after a signal there was no time; the next run writes it"
        except SupersededError:
            return "another run has taken this job over, and writes it"
        except OSError as error:
            raise DiskError(
                f"results.jsonl: {error.strerror or error}", hint="The state is safe; run the command again."
            ) from None
        return ""

    @asynccontextmanager
    async def writing_at_intervals(self, observer: Observer) -> AsyncIterator[None]:
        """Write the results at intervals during the block.

        A failure is a warning and ends that, since the end of the run tries again.
        """
        ended, stopped = asyncio.Event(), threading.Event()
        writing = asyncio.create_task(self._write_repeatedly(ended, self._resting(stopped), observer))
        try:
            yield
        finally:  # not cancelled, since the thread would go on and write the same file as `finish`
            ended.set()
            stopped.set()
            await asyncio.wait([writing])

    async def _write_repeatedly(self, ended: asyncio.Event, on_step: OnStep, observer: Observer) -> None:
        pause = _FIRST_PAUSE
        while True:
            with anyio.move_on_after(pause):
                await ended.wait()
                return
            began = self._monotonic()
            try:
                if await self._store.is_adding():  # each page of drafts would mean all lines once more
                    continue
                await self._write(on_step)
            except _OutOfTimeError:
                return
            except (OSError, RunnerError) as error:
                message = error.message if isinstance(error, RunnerError) else error.strerror or error
                observer.warn(f"results.jsonl was not written: {message}; the end of the run tries again")
                return
            except Exception as error:  # noqa: BLE001 - a bug here must not cost a run its purchases; it is reported
                observer.report_bug(error)
                return
            pause = max(_INTERVAL, (self._monotonic() - began) / _SHARE / (1 + _REST))

    def _resting(self, stopped: threading.Event) -> OnStep:
        """Return a function that rests after each step, and gives up once the run has ended."""
        last = self._monotonic()

        def rest(_: float) -> None:
            nonlocal last
            if stopped.wait(_REST * min(_LONGEST_STEP, self._monotonic() - last)):
                raise _OutOfTimeError
            last = self._monotonic()

        return rest

    async def _write(self, on_step: OnStep) -> None:
        """Write what has changed, or everything where it is not known what has changed."""
        state = await self._store.take_changes()
        if await anyio.to_thread.run_sync(self._write_files, state, on_step):
            await self._store.set_results(state.next_mark)

    def _write_files(self, state: ResultsState, on_step: OnStep) -> bool:
        """Write results and index, and return whether there was anything to write."""
        merged = MergedRows.read(self._state_directory)
        with open_read_only(self._state_directory) as queries:
            try:
                index = self._fitting_index(state)
                if not state.changes:
                    return False
                written = write_changes(
                    self._path,
                    index,
                    queries.taken_changes(_MOST_CHANGED),
                    lambda ids: merged.attach(queries.results_of(ids)),
                    on_step,
                )
            except UnfitIndexError:
                pages = map(list, map(merged.attach, queries.result_pages()))
                written = write_all(self._path, pages, state.tasks, on_step)
        written.mark, written.arrangement = state.next_mark, state.arrangement
        written.write(self._index_path)
        return True

    def _fitting_index(self, state: ResultsState) -> ResultsIndex:
        """Return the index of results.jsonl.

        Raises UnfitIndexError if it is of another state of the job, or nearly all has changed.
        """
        index = ResultsIndex.read(self._index_path, self._path, state.tasks)
        if not state.mark or (index.mark, index.arrangement) != (state.mark, state.arrangement):
            raise UnfitIndexError
        if state.changes > min(_MOST_CHANGED, _MOST_CHANGED_PART * state.tasks):
            raise UnfitIndexError
        return index
