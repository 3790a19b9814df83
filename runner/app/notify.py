"""Notifications of a run's start and end to the monitor that the manifest names, and to the metrics file."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio

from runner.app import provider_config
from runner.app.run_job import write_metrics
from runner.errors import ConfigError, JobLockedError, RunnerError
from runner.manifest.notify_urls import fill_url, url_variables
from runner.net.webhooks import Monitor, Notification
from runner.scheduler.clock import Clock
from runner.scheduler.outcome import MEANING, Exit
from runner.text import format_duration, format_size, pluralize, sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runner.app.job import LoadedJob
    from runner.app.observer import Observer
    from runner.app.run_context import RunOptions
    from runner.manifest.model import Notify
    from runner.settings import Settings

#: verbs of which a monitor is notified; the others do not do the job's work
_NOTIFIED_VERBS = frozenset({"run", "retry"})


@contextmanager
def notify_around(
    job: LoadedJob, options: RunOptions, observer: Observer
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Notify the monitor before and after the block, and write the metrics file at its end.

    The caller hands the run's summary to the yielded function. Raises ConfigError before anything is sent.
    """
    target = _monitor(job, options, observer)
    _notify(target, job, options, observer, None, {})
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
        if options.metrics_file is not None and code != JobLockedError.exit_code:
            write_metrics(options.metrics_file, job, observer, Clock().now(), summary, code)
        _notify(target, job, options, observer, code, summary)


def _monitor(job: LoadedJob, options: RunOptions, observer: Observer) -> tuple[Notify, Monitor] | None:
    """Return the manifest's `notify` section and its monitor, or None if no notification is due.

    Runs in the sandbox notify no monitor, because they are no news of the real job.
    """
    notify = job.manifest.notify
    if notify is None or options.verb not in _NOTIFIED_VERBS:
        return None
    if job.in_sandbox:
        observer.info("the monitor is not told of runs in the sandbox")
        return None
    return notify, Monitor(
        _resolved_url(notify.url, job.settings), str(uuid.uuid4()), **provider_config.way_out(job.settings)
    )


def _resolved_url(url: str, settings: Settings) -> str:
    """Return the URL with every `${NAME}` filled in from the environment.

    Raises ConfigError if one is not set.
    """
    values = {}
    for name in url_variables(url):
        value = settings.secret(name)
        if value is None:
            raise ConfigError(
                f"notify.url: {name} is not set",
                hint=f"export {name}=…, or {name}_FILE=… with the path of a file of mode 0600; or remove `notify:`.",
            )
        values[name] = value.reveal()
    return fill_url(url, values)


def _notify(
    target: tuple[Notify, Monitor] | None,
    job: LoadedJob,
    options: RunOptions,
    observer: Observer,
    code: int | None,
    summary: Mapping[str, Any],
) -> None:
    """Notify the monitor if the manifest asks for it.

    A failure to do so is logged and stops nothing.
    `code` is the run's exit code, or None at its start.
    """
    event = "start" if code is None else "success" if code == Exit.DONE else "failure"
    if target is None or event not in target[0].on:
        return
    try:
        failure = anyio.run(target[1].notify, notification(job.manifest.name, code, summary))
    except KeyboardInterrupt:
        if code is None:
            raise  # nothing has begun yet
        failure = "stopped by a signal"
    if failure is not None:
        # a quiet job stays quiet: the monitor itself reports a missing notification
        (observer.info if options.quiet else observer.warn)(f"the monitor was not told of the {event}: {failure}")


def notification(job: str, code: int | None, summary: Mapping[str, Any]) -> Notification:
    """Return the notification of a run's start (`code` None) or end.

    It holds counts alone, no prompt and no message of a provider.
    """
    name = sanitize(job, 100)
    if code is None:
        return Notification(None, f"{name}: a run begins", "")
    title = f"{name}: exit {code}, {MEANING[Exit(code)]}"
    if not summary:
        return Notification(code, title, "nothing was done")
    counts = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in summary["counts"].items())
    cost = f", cost {summary['cost']:g}" if summary["cost"] else ""
    files = pluralize(summary["downloaded"], "file")
    work = f"{summary['submitted']} submitted, {summary['adopted']} found again, {files}"
    took = f"{format_size(summary['bytes'])}{cost}, in {format_duration(summary['seconds'])}"
    return Notification(code, title, f"{counts or 'no tasks'}\n{work}, {took}")
