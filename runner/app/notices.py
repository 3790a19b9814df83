"""Notifications of a run's start and end to the monitor that the manifest names, and to the metrics file."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio

from runner import logs
from runner.app.watching import measure
from runner.errors import ConfigError, Locked, RunnerError
from runner.manifest.notices import filled, variables
from runner.net.notify import Monitor, Notice
from runner.pipeline.clock import Clock
from runner.pipeline.outcome import MEANING, Exit
from runner.report.text import duration, harmless, many, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runner.app.jobs import Job
    from runner.app.rooms import Choices
    from runner.manifest.model import Notify
    from runner.settings import Settings

#: verbs of which a monitor is notified; the others do not do the job's work
_HEARD = frozenset({"run", "retry"})


@contextmanager
def announced(job: Job, options: Choices) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Notify the monitor before and after the block, and write the metrics file at its end.

    The caller hands the run's summary to the yielded function. Raises ConfigError before anything is sent.
    """
    target = _monitor(job, options)
    _tell(target, job, options, None, {})
    summary: dict[str, Any] = {}
    code: int = Exit.BUG
    try:
        yield summary.update
        code = summary["exit_code"]
    except RunnerError as error:
        code = error.exit_code
        raise
    except KeyboardInterrupt:
        code = Exit.INT
        raise
    finally:
        # a run that finds the job locked leaves the file to the run that holds the lock
        if options.metrics_file is not None and code != Locked.exit_code:
            measure(options.metrics_file, job, Clock().now(), summary, code)
        _tell(target, job, options, code, summary)


def _monitor(job: Job, options: Choices) -> tuple[Notify, Monitor] | None:
    """Return the manifest's `notify` section and its monitor, or None if no notification is due.

    Runs in the sandbox notify no monitor, because they are no news of the real job.
    """
    notify = job.manifest.notify
    if notify is None or options.verb not in _HEARD:
        return None
    if job.in_sandbox:
        logs.note("the monitor is not told of runs in the sandbox")
        return None
    return notify, Monitor(_resolved(notify.url, job.settings), str(uuid.uuid4()))


def _resolved(url: str, settings: Settings) -> str:
    """Return the URL with every `${NAME}` filled in from the environment.

    Raises ConfigError if one is not set.
    """
    values = {}
    for name in variables(url):
        value = settings.secret(name)
        if value is None:
            raise ConfigError(
                f"notify.url: {name} is not set",
                hint=f"export {name}=…, or {name}_FILE=… with the path of a file of mode 0600; or remove `notify:`.",
            )
        values[name] = value.reveal()
    return filled(url, values)


def _tell(
    target: tuple[Notify, Monitor] | None, job: Job, options: Choices, code: int | None, summary: Mapping[str, Any]
) -> None:
    """Notify the monitor if the manifest asks for it.

    A failure to do so is logged and stops nothing.
    `code` is the run's exit code, or None at its start.
    """
    event = "start" if code is None else "success" if code == Exit.DONE else "failure"
    if target is None or event not in target[0].on:
        return
    try:
        failure = anyio.run(target[1].tell, notice(job.manifest.name, code, summary))
    except KeyboardInterrupt:
        if code is None:
            raise  # nothing has begun yet
        failure = "stopped by a signal"
    if failure is not None:
        # a quiet job stays quiet: the monitor itself reports a missing notification
        (logs.note if options.quiet else logs.warn)(f"the monitor was not told of the {event}: {failure}")


def notice(job: str, code: int | None, summary: Mapping[str, Any]) -> Notice:
    """Return the notification of a run's start (`code` None) or end.

    It holds counts alone, no prompt and no message of a provider.
    """
    name = harmless(job, 100)
    if code is None:
        return Notice(None, f"{name}: a run begins", "")
    title = f"{name}: exit {code}, {MEANING[Exit(code)]}"
    if not summary:
        return Notice(code, title, "nothing was done")
    counts = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in summary["counts"].items())
    cost = f", cost {summary['cost']:g}" if summary["cost"] else ""
    work = f"{summary['submitted']} submitted, {summary['adopted']} found again, {many(summary['downloaded'], 'file')}"
    took = f"{size(summary['bytes'])}{cost}, in {duration(summary['seconds'])}"
    return Notice(code, title, f"{counts or 'no tasks'}\n{work}, {took}")
