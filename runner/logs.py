"""Configure structlog and turn task events into log lines. No other module logs on its own.

Lines go to the current `sys.stderr`, so that a live view can print them above itself, and as JSON to a file.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from runner.lean import without
from runner.lifecycle.events import (
    Accepted,
    Blocked,
    Found,
    Interrupted,
    LinkExpired,
    Refused,
    Resolved,
    Saved,
    Setback,
)
from runner.lifecycle.task import State

with without("rich"):  # it would only serve coloured tracebacks, which are never shown here
    import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.lifecycle.events import Event
    from runner.lifecycle.task import Task
    from runner.log_file import LogFile

Format = Literal["console", "json"]
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
#: frames of a bug's traceback that are logged
_FRAMES = 4
#: events that are logged as warnings
_LOUD = (Interrupted, Found, Refused, Blocked)
#: names of events in log lines, where they differ from the name of the class; scripts match them
_NAMES: dict[type[Event], str] = {Setback: "setback", Refused: "refused", Blocked: "blocked"}
#: ordinary results, counted by the live view and grouped by the summary; logged one by one only on request
_COUNTED = frozenset({"refused"})


class _Lines:
    """Sink of log events: stderr and a file. structlog calls the method named after the level."""

    def __init__(self, log_format: Format | None, level: int, file: LogFile | None) -> None:
        self._render = _json if log_format == "json" else _console
        self._asked, self._level, self._file = log_format is not None, level, file

    def msg(self, **event: Any) -> None:
        try:
            if self._file is not None:
                self._file.write(_json(dict(event)))
        finally:
            if _LEVELS[event["level"]] >= self._level and (self._asked or event["event"] not in _COUNTED):
                sys.stderr.write(f"{self._render(event)}\n")
                sys.stderr.flush()

    info = warning = error = msg


def set_up(log_format: Format | None, *, quiet: bool, file: LogFile | None = None) -> None:
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
            _one_line,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO if file is not None else level),
        logger_factory=lambda *_: _Lines(log_format, level, file),
        cache_logger_on_first_use=False,
    )


def _json(event: Any) -> str:
    import orjson  # noqa: PLC0415 - only where JSON lines are asked for

    return orjson.dumps({**event, "monotonic": round(time.monotonic(), 6)}, default=str).decode()


def _console(event: dict[str, Any]) -> str:
    """Return an event as one line: time, task, event name and the fields that are set."""
    head = [event.pop("timestamp")[11:19], event.pop("task", ""), event.pop("event")]
    level = event.pop("level")
    if level == "info":
        event.pop("ref", None)  # it repeats the task's key; users need it only to ask about failures
    fields = [f"{name}={value}" for name, value in event.items() if value is not None]
    return " ".join(part for part in (*head, "" if level == "info" else f"({level})", *fields) if part)


def _one_line(_: object, __: str, event: Any) -> Any:
    """Keep an event on one line, whatever a prompt or a provider puts into its fields."""
    return {name: _flat(value) if isinstance(value, str) else value for name, value in event.items()}


def _flat(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)[:500]


def listener() -> Callable[[Task, Event, Task], None]:
    """Return a listener that logs one line for every transition that a user may ask about later."""
    log = structlog.get_logger()

    def on_event(before: Task, event: Event, after: Task) -> None:
        name = _NAMES.get(type(event)) or type(event).__name__.lower()
        fields = _facts(event, after)
        if isinstance(event, _LOUD) or after.state in {State.HELD, State.STRANDED}:
            log.warning(name, **fields)
        elif before.state is not after.state or isinstance(event, Setback):
            log.info(name, **fields)

    return on_event


def _facts(event: Event, after: Task) -> dict[str, Any]:
    fields: dict[str, Any] = {"task": after.key[:8], "state": str(after.state), "ref": after.ref}
    match event:
        case Accepted(remote_id, reason) | Found(remote_id, reason):
            fields |= {"remote_id": remote_id, "evidence": reason}
        case Interrupted(reason):
            fields |= {"evidence": reason}
        case Refused(error) | Blocked(_, error) | Setback(_, error) | LinkExpired(error):
            fields |= {"reason": error.reason, "code": error.code, "message": error.message}
        case Saved(outputs):
            fields |= {"files": [output.file for output in outputs]}
        case Resolved():
            fields |= {"verdict": event.verdict, "by": event.by}
        case _:
            pass
    return fields


def emergency(task: Task, event: Event) -> None:
    """Print a remote id that could not be stored to stderr. Enter it later by `runner resolve KEY --adopt ID`."""
    remote_id = event.remote_id if isinstance(event, Accepted | Found) else None
    with suppress(OSError):
        sys.stderr.write(f"EMERGENCY id{{key={task.key} ref={task.ref} remote_id={remote_id}}}\n")
        sys.stderr.flush()
    with suppress(OSError):
        structlog.get_logger().error("emergency", task=task.key, ref=task.ref, remote_id=remote_id)


def bug(error: Exception) -> None:
    """Log an unexpected exception in the work of one task, with the innermost frames of its traceback."""
    with suppress(OSError):
        structlog.get_logger().error("internal_error", error=repr(error), at=_place(error))


def _place(error: BaseException) -> list[str]:
    """Return the innermost frames of the traceback, the innermost last."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]


def note(message: str) -> None:
    """Log a message at level info, which is shown only if logs were asked for."""
    with suppress(OSError):
        structlog.get_logger().info(message)


def warn(message: str) -> None:
    """Log a warning for the user. The run goes on."""
    with suppress(OSError):
        structlog.get_logger().warning(message)
