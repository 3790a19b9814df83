"""Configure structlog and turn task events into log lines. No other module logs on its own.

Lines go to the current `sys.stderr`, so that a live view can print them above itself, and as JSON to a file that
logrotate may move away at any time.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from runner._imports import without_module
from runner.files import open_file
from runner.tasks.events import (
    Accepted,
    AccountBlocked,
    Found,
    Interrupted,
    LinkExpired,
    Rejected,
    Resolved,
    RetryableFailure,
    Saved,
)
from runner.tasks.models import State
from runner.tasks.remote_ids import show_remote_id
from runner.text import sanitize

with without_module("rich"):  # it would only serve coloured tracebacks, which are never shown here
    import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.tasks.events import Event
    from runner.tasks.models import Task

Format = Literal["console", "json"]
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
#: characters of a field that are logged
_MAX_TEXT = 500
#: frames of a bug's traceback that are logged
_MAX_FRAMES = 4
#: events that are logged as warnings
_WARNING_EVENTS = (Interrupted, Found, Rejected, AccountBlocked)
#: names of events in log lines, where they differ from the name of the class; scripts match them
_EVENT_NAMES: dict[type[Event], str] = {RetryableFailure: "setback", Rejected: "refused", AccountBlocked: "blocked"}
#: ordinary results, counted by the live view and grouped by the summary; logged one by one only on request
_SUMMARIZED = frozenset({"refused"})


def configure(log_format: Format | None, *, quiet: bool, file: LogFile | None = None) -> None:
    """Send log lines to stderr in the given format, and all of them as JSON to `file`.

    If `log_format` is None or `quiet` is set, stderr gets warnings and errors only.
    """
    for noisy in ("httpx", "httpcore", "aiohttp", "asyncio", "aiosqlite"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    level = logging.WARNING if quiet or log_format is None else logging.INFO
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _flatten_event,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO if file is not None else level),
        logger_factory=lambda *_: _LineSink(log_format, level, file),
        cache_logger_on_first_use=False,
    )


def listener() -> Callable[[Task, Event, Task], None]:
    """Return a listener that logs one line for every transition that a user may ask about later."""
    log = structlog.get_logger()

    def on_event(before: Task, event: Event, after: Task) -> None:
        name = _EVENT_NAMES.get(type(event)) or type(event).__name__.lower()
        fields = _event_fields(event, after)
        if isinstance(event, _WARNING_EVENTS) or after.state in {State.HELD, State.STRANDED}:
            log.warning(name, **fields)
        elif before.state is not after.state or isinstance(event, RetryableFailure):
            log.info(name, **fields)

    return on_event


def _event_fields(event: Event, after: Task) -> dict[str, Any]:
    fields: dict[str, Any] = {"task": after.key[:8], "state": str(after.state), "ref": after.ref}
    match event:
        case Accepted(remote_id, reason) | Found(remote_id, reason):
            fields |= {"remote_id": remote_id, "evidence": reason}
        case Interrupted(reason):
            fields |= {"evidence": reason}
        case Rejected(error) | AccountBlocked(_, error) | RetryableFailure(_, error) | LinkExpired(error):
            fields |= {"reason": error.reason, "code": error.code, "message": error.message}
        case Saved(outputs):
            fields |= {"files": [output.file for output in outputs]}
        case Resolved():
            fields |= {"verdict": event.resolution, "by": event.by}
        case _:
            pass
    return fields


def info(message: str) -> None:
    """Log a message at level info, which is shown only if logs were asked for."""
    with suppress(OSError):
        structlog.get_logger().info(message)


def warn(message: str) -> None:
    """Log a warning for the user. The run goes on."""
    with suppress(OSError):
        structlog.get_logger().warning(message)


def report_bug(error: Exception) -> None:
    """Log an unexpected exception in the work of one task, with the innermost frames of its traceback."""
    frames = traceback.extract_tb(error.__traceback__)[-_MAX_FRAMES:]
    with suppress(OSError):
        structlog.get_logger().error(
            "internal_error",
            error=repr(error),
            at=[f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames],
        )


def write_last_resort(task: Task, event: Event) -> None:
    """Print a remote id that could not be stored to stderr. Enter it later by `runner resolve KEY --adopt ID`."""
    remote_id = show_remote_id(event.remote_id) if isinstance(event, Accepted | Found) else None
    with suppress(OSError):
        sys.stderr.write(f"EMERGENCY id{{key={task.key} ref={task.ref} remote_id={remote_id}}}\n")
        sys.stderr.flush()
    with suppress(OSError):
        structlog.get_logger().error("emergency", task=task.key, ref=task.ref, remote_id=remote_id)


class LogFile:
    """Append-only file of lines, mode 0600, that is created again after it was moved away.

    It works with logrotate without `copytruncate`. Raise OSError if the path cannot be written or is no plain file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = self._open()

    def __repr__(self) -> str:
        return f"LogFile({str(self._path)!r})"

    def write(self, line: str) -> None:
        """Append one line in a single write."""
        if self._is_moved():
            old, self._descriptor = self._descriptor, self._open()
            os.close(old)
        os.write(self._descriptor, f"{line}\n".encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _is_moved(self) -> bool:
        try:
            on_disk = self._path.stat()
        except FileNotFoundError:
            return True
        opened = os.fstat(self._descriptor)
        return (on_disk.st_dev, on_disk.st_ino) != (opened.st_dev, opened.st_ino)

    def _open(self) -> int:
        return open_file(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


class _LineSink:
    """Sink of log events: stderr and a file. structlog calls the method named after the level."""

    def __init__(self, log_format: Format | None, level: int, file: LogFile | None) -> None:
        self._render = _render_json if log_format == "json" else _render_console
        self._requested, self._level, self._file = log_format is not None, level, file

    def msg(self, **event: Any) -> None:
        try:
            if self._file is not None:
                self._file.write(_render_json(dict(event)))
        finally:
            if _LEVELS[event["level"]] >= self._level and (self._requested or event["event"] not in _SUMMARIZED):
                sys.stderr.write(f"{self._render(event)}\n")
                sys.stderr.flush()

    info = warning = error = msg


def _render_json(event: Any) -> str:
    import orjson  # noqa: PLC0415 - only where JSON lines are asked for

    return orjson.dumps({**event, "monotonic": round(time.monotonic(), 6)}, default=str).decode()


def _render_console(event: dict[str, Any]) -> str:
    """Return an event as one line: time, task, event name and the fields that are set."""
    head = [event.pop("timestamp")[11:19], event.pop("task", ""), event.pop("event")]
    level = event.pop("level")
    if level == "info":
        event.pop("ref", None)  # it repeats the task's key; users need it only to ask about failures
    fields = [f"{name}={value}" for name, value in event.items() if value is not None]
    return " ".join(part for part in (*head, "" if level == "info" else f"({level})", *fields) if part)


def _flatten_event(_: object, __: str, event: Any) -> Any:
    """Keep an event on one line, whatever a prompt or a provider puts into its fields."""
    return {
        name: sanitize(value, _MAX_TEXT, collapse=False) if isinstance(value, str) else value
        for name, value in event.items()
    }
