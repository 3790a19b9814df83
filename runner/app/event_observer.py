"""The observer that hands a run's events to a caller's listener. Nothing is printed here."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from runner.app.run_events import Progress, RunEvent, TaskChanged, Warned
from runner.report.run_info import status_line
from runner.scheduler.outcome import Ending, Exit
from runner.tasks.events import Accepted, Found
from runner.tasks.models import State
from runner.tasks.remote_ids import show_remote_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runner.report.run_info import RunInfo
    from runner.report.stats import RunStats
    from runner.tasks.events import Event
    from runner.tasks.models import Task

#: seconds between two `Progress` events, at least
_PROGRESS_SECONDS = 1.0
#: seconds that the end of a run waits for a listener that is behind
_FLUSH_SECONDS = 5.0

logger = logging.getLogger("runner")
logger.addHandler(logging.NullHandler())


class Listener:
    """Caller of `on_event`. `post` has a function called soon, in the caller's own thread and in order.

    A listener that raises does not disturb the run. Its errors are logged and make the run's exit code 1.
    """

    def __init__(
        self, on_event: Callable[[RunEvent], object] | None, post: Callable[[Callable[[], None]], object]
    ) -> None:
        self._on_event, self._post = on_event, post
        self._errors: list[Exception] = []

    def send(self, event: RunEvent) -> None:
        """Hand an event over, from any thread."""
        if self._on_event is not None:
            with suppress(RuntimeError):  # the caller's event loop is closed: nobody listens any more
                self._post(lambda: self._call(event))

    def errors(self) -> Sequence[Exception]:
        """Wait until every event has been handled, 5 seconds at most, and return what the listener raised."""
        handled = threading.Event()
        with suppress(RuntimeError):
            self._post(handled.set)
            handled.wait(_FLUSH_SECONDS)
        return self._errors

    def _call(self, event: RunEvent) -> None:
        try:
            if self._on_event is not None:
                self._on_event(event)
        except Exception as error:
            self._errors.append(error)
            logger.exception("the event listener failed")


class EventObserver:
    """Observer that hands events to a listener, and warnings to the standard logger `runner` as well."""

    def __init__(self, job: str, listener: Listener) -> None:
        self._job, self._listener = job, listener
        #: one text for each paid id that could not be stored, with what is needed to adopt it
        self.unsaved: list[str] = []

    def info(self, message: str) -> None:
        """Log a message at level info."""
        logger.info("%s: %s", self._job, message)

    def warn(self, message: str) -> None:
        """Log a warning and hand it on."""
        logger.warning("%s: %s", self._job, message)
        self._listener.send(Warned(self._job, message))

    def report_bug(self, error: Exception) -> None:
        """Log an unexpected exception and hand it on."""
        logger.error("%s: internal error", self._job, exc_info=error)
        self._listener.send(Warned(self._job, f"internal error: {error!r}"))

    def write_last_resort(self, task: Task, event: Event) -> None:
        """Keep an id that could not be stored, log it and hand it on."""
        remote_id = show_remote_id(event.remote_id) if isinstance(event, Accepted | Found) else None
        self.unsaved.append(f"this could not be saved: key={task.key} ref={task.ref} remote_id={remote_id}")
        logger.critical("%s: %s", self._job, self.unsaved[-1])
        self._listener.send(Warned(self._job, self.unsaved[-1]))

    def on_change(self, before: Task, event: Event, after: Task) -> None:  # noqa: ARG002 - the observer's signature
        """Hand on a transition to another state."""
        if before.state is not after.state:
            changed = TaskChanged(
                self._job, after.key, after.name, before.state, after.state, after.remote_id, after.error
            )
            self._listener.send(changed)

    @contextmanager
    def show_progress(self, info: RunInfo, stats: RunStats) -> Iterator[Callable[[float], None]]:
        """Yield a function that hands on the progress if it has changed."""
        latest: Progress | None = None
        sent_at = float("-inf")

        def update(now: float) -> None:
            nonlocal latest, sent_at
            if now - sent_at >= _PROGRESS_SECONDS or not stats.open:
                fresh = _progress(info, stats, now)
                if latest is None or fresh.counts != latest.counts:
                    latest, sent_at = fresh, now
                    self._listener.send(fresh)

        yield update

    def endings(self) -> Sequence[Ending]:
        """Return a bug if the listener raised one."""
        return [Ending(Exit.BUG, f"the event listener failed: {error!r}") for error in self._listener.errors()[:1]]


def _progress(info: RunInfo, stats: RunStats, now: float) -> Progress:
    """Return the progress at `now`, seconds since the epoch."""
    return Progress(
        info.job,
        counts={str(state): count for state, count in stats.states.items() if count > 0},
        total=stats.total,
        done=stats.states[State.DONE],
        cost=None if stats.unpriced else round(stats.cost_before + stats.cost, 6),
        unit=info.unit,
        rate=stats.rate(now),
        eta=stats.eta(now),
        text=status_line(info, stats, now),
    )
