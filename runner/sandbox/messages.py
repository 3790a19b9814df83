"""What comes in and what goes out, as values; how an answer ends is part of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any


class Ending(Enum):
    """How the socket treats an answer."""

    WHOLE = auto()
    #: Nothing is sent; the connection closes.
    CLOSED = auto()
    #: Nothing is sent; the connection is reset.
    RESET = auto()
    #: Half of the body, then the connection closes.
    CUT = auto()
    #: Half of the body, then the connection is reset.
    CUT_RESET = auto()


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request; header names are in lower case, a repeated query name has its last value."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def fields(self) -> dict[str, Any] | None:
        """Return the body as a JSON object, or None if it is not one."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer and what shall go wrong with it."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    ending: Ending = Ending.WHOLE
    #: Seconds before the first byte.
    delay_s: float = 0.0
    #: Seconds over which the body drips.
    spread_s: float = 0.0

    def with_(self, **changes: Any) -> "Answer":
        return replace(self, **changes)


def as_json(value: object, status: int = 200) -> Answer:
    """Return a JSON answer; non-ASCII is escaped, so that any text a client sent can be echoed."""
    return Answer(status=status, body=json.dumps(value, separators=(",", ":")).encode())


def as_text(text: str, status: int) -> Answer:
    return Answer(status=status, body=text.encode(), content_type="text/plain; charset=utf-8")


def as_page(status: int, title: str) -> Answer:
    """Return HTML, as front ends and captive portals send it where JSON was expected."""
    page = f"<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center></body></html>\r\n"
    return Answer(status=status, body=page.encode(), content_type="text/html; charset=utf-8")


LOST = Answer(ending=Ending.CLOSED)
RESET = Answer(ending=Ending.RESET)
PORTAL = as_page(200, "Welcome: please log in to use this network")
OUTAGE = as_page(503, "503 Service Temporarily Unavailable")
BAD_GATEWAY = as_page(502, "502 Bad Gateway")
GATEWAY_TIMEOUT = as_page(504, "504 Gateway Time-out")
SERVER_ERROR = as_page(500, "500 Internal Server Error")
