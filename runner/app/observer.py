"""The receiver of what happens in a run, and the switch that stops a run from another thread."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from runner.scheduler.outcome import Exit
from runner.scheduler.run import GRACE, SHORT_GRACE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from runner.report.run_info import RunInfo
    from runner.report.stats import RunStats
    from runner.scheduler.outcome import Ending
    from runner.scheduler.run import Run
    from runner.tasks.events import Event
    from runner.tasks.models import Task

#: seconds between two checks whether the interpreter ends
_WATCH_SECONDS = 0.2


class Observer(Protocol):
    """Receiver of a run's events: the command line prints and logs them, the library hands them to a caller.

    No method may raise, because a run with paid tasks in flight must not end for the sake of its reader.
    """

    def info(self, message: str) -> None:
        """Receive a message that is shown only on request."""

    def warn(self, message: str) -> None:
        """Receive a warning. The run goes on."""

    def report_bug(self, error: Exception) -> None:
        """Receive an unexpected exception in the work of one task."""

    def write_last_resort(self, task: Task, event: Event) -> None:
        """Receive an answer whose id could not be stored, and which nothing else records."""

    def on_change(self, before: Task, event: Event, after: Task) -> None:
        """Receive a committed transition."""

    def show_progress(self, info: RunInfo, stats: RunStats) -> AbstractContextManager[Callable[[float], None]]:
        """Return a context whose function is called with the time, in seconds, whenever the progress may be shown."""

    def endings(self) -> Sequence[Ending]:
        """Return the reasons that the observer adds to the end of the run. Called once, when all work is done."""


class StopSwitch:
    """Switch that stops a run from another thread, as a signal does on the command line.

    The first request gives requests on the wire 30 seconds to deliver their ids, each further one 5 seconds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = 0
        self._stop: Callable[[float], None] | None = None

    def request(self) -> None:
        """Stop the run. A run that has not begun its work will begin none; one that has ended is not concerned."""
        with self._lock:
            self._requests += 1
            if self._stop is not None:
                self._stop(self._grace)

    def is_requested(self) -> bool:
        """Return whether the run was asked to stop."""
        return self._requests > 0

    @contextmanager
    def attached(self, run: Run) -> Iterator[None]:
        """Let requests stop `run`, which works in this thread's event loop, for the length of the block."""
        loop = asyncio.get_running_loop()

        def stop(grace: float) -> None:
            loop.call_soon_threadsafe(run.stop, Exit.INT, grace)

        with self._lock:
            self._stop = stop
            if self._requests:
                stop(self._grace)
        watch = asyncio.create_task(self._watch_main_thread())
        try:
            yield
        finally:
            watch.cancel()
            with self._lock:
                self._stop = None

    async def _watch_main_thread(self) -> None:
        """Stop the run when the interpreter ends, because no host can be looked up any more then."""
        while threading.main_thread().is_alive():  # noqa: ASYNC110 - a thread that ends sets no event
            await asyncio.sleep(_WATCH_SECONDS)
        self.request()

    @property
    def _grace(self) -> float:
        return GRACE if self._requests == 1 else SHORT_GRACE
