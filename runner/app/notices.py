"""Those who are not here: the monitor that the manifest names is told of a run, and the metrics file how it ended."""

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

#: verbs that do the job's work, so that a monitor may hear of them
_HEARD = frozenset({"run", "retry"})


@contextmanager
def announced(job: Job, choices: Choices) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Around a run, whose summary is handed to what is yielded; raises ConfigError, before anything is sent."""
    place = _monitor(job, choices)
    _tell(place, job, choices, None, {})
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
        if choices.metrics_file is not None and code != Locked.exit_code:  # the file is his who holds the job
            measure(choices.metrics_file, job, Clock().now(), summary, code)
        _tell(place, job, choices, code, summary)


def _monitor(job: Job, choices: Choices) -> tuple[Notify, Monitor] | None:
    """Whom to tell; nobody of what happens in the sandbox, which is no news of the real job."""
    notify = job.manifest.notify
    if notify is None or choices.verb not in _HEARD:
        return None
    if job.in_sandbox:
        logs.note("the monitor is not told of runs in the sandbox")
        return None
    return notify, Monitor(_resolved(notify.url, job.settings), str(uuid.uuid4()))


def _resolved(url: str, settings: Settings) -> str:
    """The address with every `${NAME}` filled in from the environment; raises ConfigError."""
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
    place: tuple[Notify, Monitor] | None, job: Job, choices: Choices, code: int | None, summary: Mapping[str, Any]
) -> None:
    word = "start" if code is None else "success" if code == Exit.DONE else "failure"
    if place is None or word not in place[0].on:
        return
    try:
        why = anyio.run(place[1].tell, notice(job.manifest.name, code, summary))
    except KeyboardInterrupt:
        if code is None:
            raise  # nothing has begun yet
        why = "stopped by a signal"
    if why is not None:
        # a job that is silent on success stays silent: the monitor misses the notice by itself
        (logs.note if choices.quiet else logs.warn)(f"the monitor was not told of the {word}: {why}")


def notice(job: str, code: int | None, summary: Mapping[str, Any]) -> Notice:
    """What a monitor hears: counts alone, no prompt and no message of a provider."""
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
