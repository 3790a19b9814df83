"""structlog, set up once; turns lifecycle events into lines. Nothing logs in passing.

Lines go to stderr as it is at that moment, so that a live view can put them above itself; and, as JSON, to a file.
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

with without("rich"):  # for tracebacks in colour, which nobody sees here
    import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.lifecycle.events import Event
    from runner.lifecycle.task import Task
    from runner.log_file import LogFile

Format = Literal["console", "json"]
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
#: frames of a bug that are told
_FRAMES = 4
#: events that a person should see without asking
_LOUD = (Interrupted, Found, Refused, Blocked)


#: results like any other, which the view counts and the summary groups: said line by line to those who ask for logs
_COUNTED = frozenset({"refused"})


class _Lines:
    """Where rendered lines go; structlog calls it by the name of the level."""

    def __init__(self, form: Format | None, level: int, file: LogFile | None) -> None:
        self._render = _json if form == "json" else _console
        self._asked, self._level, self._file = form is not None, level, file

    def msg(self, **event: Any) -> None:
        try:
            if self._file is not None:
                self._file.write(_json(dict(event)))
        finally:
            if _LEVELS[event["level"]] >= self._level and (self._asked or event["event"] not in _COUNTED):
                sys.stderr.write(f"{self._render(event)}\n")
                sys.stderr.flush()

    info = warning = error = msg


def set_up(form: Format | None, *, quiet: bool, file: LogFile | None = None) -> None:
    """Send log lines to stderr in this form; None means that only what matters is written. A file gets everything."""
    for noisy in ("httpx", "httpcore", "aiohttp", "asyncio", "aiosqlite"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    level = logging.WARNING if quiet or form is None else logging.INFO
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _one_line,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO if file is not None else level),
        logger_factory=lambda *_: _Lines(form, level, file),
        cache_logger_on_first_use=False,
    )


def _json(event: Any) -> str:
    import orjson  # noqa: PLC0415 - only where JSON lines are asked for

    return orjson.dumps({**event, "monotonic": round(time.monotonic(), 6)}, default=str).decode()


def _console(event: dict[str, Any]) -> str:
    """Time, task, what happened, and the facts that are there."""
    head = [event.pop("timestamp")[11:19], event.pop("task", ""), event.pop("event")]
    level = event.pop("level")
    if level == "info":
        event.pop("ref", None)  # it holds the task's key once more; what went wrong is asked about with it
    facts = [f"{name}={value}" for name, value in event.items() if value is not None]
    return " ".join(part for part in (*head, "" if level == "info" else f"({level})", *facts) if part)


def _one_line(_: object, __: str, event: Any) -> Any:
    """One event is one line, whatever a prompt or a provider says (X32)."""
    return {name: _flat(value) if isinstance(value, str) else value for name, value in event.items()}


def _flat(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)[:500]


def listener() -> Callable[[Task, Event, Task], None]:
    """A hook that writes one line for each change a person may ask about later."""
    log = structlog.get_logger()

    def hear(before: Task, event: Event, after: Task) -> None:
        name = type(event).__name__.lower()
        facts = _facts(event, after)
        if isinstance(event, _LOUD) or after.state in {State.HELD, State.STRANDED}:
            log.warning(name, **facts)
        elif before.state is not after.state or isinstance(event, Setback):
            log.info(name, **facts)

    return hear


def _facts(event: Event, after: Task) -> dict[str, Any]:
    facts: dict[str, Any] = {"task": after.key[:8], "state": str(after.state), "ref": after.ref}
    match event:
        case Accepted(remote_id, evidence) | Found(remote_id, evidence):
            facts |= {"remote_id": remote_id, "evidence": evidence}
        case Interrupted(evidence):
            facts |= {"evidence": evidence}
        case Refused(fault) | Blocked(_, fault) | Setback(_, fault) | LinkExpired(fault):
            facts |= {"reason": fault.reason, "code": fault.code, "message": fault.message}
        case Saved(outputs):
            facts |= {"files": [output.file for output in outputs]}
        case Resolved():
            facts |= {"verdict": event.verdict, "by": event.by}
        case _:
            pass
    return facts


def emergency(task: Task, event: Event) -> None:
    """The last resort for an answer that could not be written down: enter it with `runner resolve KEY --adopt ID`."""
    remote_id = event.remote_id if isinstance(event, Accepted | Found) else None
    with suppress(OSError):
        sys.stderr.write(f"EMERGENCY id{{key={task.key} ref={task.ref} remote_id={remote_id}}}\n")
        sys.stderr.flush()
    with suppress(OSError):
        structlog.get_logger().error("emergency", task=task.key, ref=task.ref, remote_id=remote_id)


def bug(error: Exception) -> None:
    """A bug in one task's work, with its place."""
    with suppress(OSError):
        structlog.get_logger().error("internal_error", error=repr(error), at=_place(error))


def _place(error: BaseException) -> list[str]:
    """The innermost frames, the last one last."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]


def note(message: str) -> None:
    """Something that only those want to know who asked for logs."""
    with suppress(OSError):
        structlog.get_logger().info(message)


def warn(message: str) -> None:
    """Something a person should know, that stops nothing."""
    with suppress(OSError):
        structlog.get_logger().warning(message)
