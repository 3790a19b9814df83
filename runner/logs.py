"""structlog, set up once; turns lifecycle events into lines. Nothing logs in passing."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import structlog

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

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.lifecycle.events import Event
    from runner.lifecycle.task import Task

Format = Literal["console", "json"]
#: events that a person should see without asking
_LOUD = (Interrupted, Found, Refused, Blocked)


def set_up(form: Format | None, *, quiet: bool) -> None:
    """Send log lines to stderr in this form; None means that only the emergency line is written."""
    for noisy in ("httpx", "httpcore", "aiohttp", "asyncio", "aiosqlite"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    level = logging.WARNING if quiet or form is None else logging.INFO
    renderer = _json if form == "json" else _console
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _one_line,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _json(_: object, __: str, event: Any) -> str:
    import orjson  # noqa: PLC0415 - only where JSON lines are asked for

    return orjson.dumps(event, default=str).decode()


def _console(_: object, __: str, event: Any) -> str:
    """Time, task, what happened, and the facts that are there."""
    event.pop("exc_info", None)
    head = [event.pop("timestamp")[11:19], event.pop("task", ""), event.pop("event")]
    level = event.pop("level")
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
    facts: dict[str, Any] = {"task": after.key[:8], "state": str(after.state)}
    match event:
        case Accepted(remote_id) | Found(remote_id):
            facts |= {"ref": after.ref, "remote_id": remote_id}
        case Interrupted(evidence):
            facts |= {"ref": after.ref, "evidence": evidence}
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


def bug(error: Exception) -> None:
    """A bug in one task's work, with its place."""
    with suppress(OSError):
        structlog.get_logger().error("internal_error", error=repr(error), exc_info=error)


def warn(message: str) -> None:
    """Something a person should know, that stops nothing."""
    with suppress(OSError):
        structlog.get_logger().warning(message)
