"""HTTP requests and responses as values. The way in which a response ends is part of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any


class Ending(Enum):
    """The way in which a response is sent and ends."""

    WHOLE = auto()
    #: Nothing is sent, and the connection closes.
    CLOSED = auto()
    #: Nothing is sent, and the connection is reset.
    RESET = auto()
    #: Half of the body is sent, then the connection closes.
    CUT = auto()
    #: Half of the body is sent, then the connection is reset.
    CUT_RESET = auto()


@dataclass(frozen=True, slots=True)
class Request:
    """A complete request. Header names are in lower case. A repeated query name has its last value."""

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
    """A complete response, with the failures of its delivery."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    ending: Ending = Ending.WHOLE
    #: Delay before the first byte, in seconds.
    delay_s: float = 0.0
    #: Time over which the body is spread, in seconds.
    spread_s: float = 0.0

    def with_(self, **changes: Any) -> "Answer":
        """Return a copy with other values of these fields."""
        return replace(self, **changes)


def as_json(value: object, status: int = 200) -> Answer:
    """Return a JSON response. Characters outside of ASCII are escaped, so that any text of a client can be echoed."""
    return Answer(status=status, body=json.dumps(value, separators=(",", ":")).encode())


def as_text(text: str, status: int) -> Answer:
    """Return a response in plain text."""
    return Answer(status=status, body=text.encode(), content_type="text/plain; charset=utf-8")


def as_page(status: int, title: str) -> Answer:
    """Return an HTML page, as proxies and captive portals send it where a client expects JSON."""
    page = f"<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center></body></html>\r\n"
    return Answer(status=status, body=page.encode(), content_type="text/html; charset=utf-8")


LOST = Answer(ending=Ending.CLOSED)
RESET = Answer(ending=Ending.RESET)
PORTAL = as_page(200, "Welcome: please log in to use this network")
OUTAGE = as_page(503, "503 Service Temporarily Unavailable")
BAD_GATEWAY = as_page(502, "502 Bad Gateway")
GATEWAY_TIMEOUT = as_page(504, "504 Gateway Time-out")
SERVER_ERROR = as_page(500, "500 Internal Server Error")
