"""The observer of the command line: it logs, and shows progress on stderr."""

from __future__ import annotations

import io
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from runner import logs
from runner.report.progress import show_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from runner.report.run_info import RunInfo
    from runner.report.stats import RunStats
    from runner.scheduler.outcome import Ending
    from runner.tasks.events import Event
    from runner.tasks.models import Task


class ConsoleObserver:
    """Observer that writes log lines as `logs.configure` says, and shows no progress if `quiet`.

    The reader of the output may be gone, which must not stop a run with paid tasks in flight.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._log_change = logs.listener()
        self.info, self.warn = logs.info, logs.warn
        self.report_bug, self.write_last_resort = logs.report_bug, logs.write_last_resort

    def on_change(self, before: Task, event: Event, after: Task) -> None:
        """Log a committed transition."""
        with suppress(OSError):
            self._log_change(before, event, after)

    def show_progress(self, info: RunInfo, stats: RunStats) -> AbstractContextManager[Callable[[float], None]]:
        """Show the progress on stderr: live on a terminal, plain lines elsewhere."""
        return show_progress(info, stats, sys.stderr or io.StringIO(), quiet=self._quiet)

    def endings(self) -> Sequence[Ending]:
        """Return nothing: a failing output is no reason for another exit code."""
        return ()
