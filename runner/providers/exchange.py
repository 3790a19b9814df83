"""Define what this package and the network client exchange: a request one way, an outcome the other way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

#: purpose of a request; it decides the connection, the deadline, and the meaning of a missing answer
Phase = Literal["submit", "query", "lookup", "token"]


@dataclass(frozen=True, slots=True)
class Request:
    """One call to a provider's API. The path is already percent-encoded, the body is sent as JSON."""

    phase: Phase
    method: str
    path: str
    #: rate limiter that it draws from, e.g. `submit` or `query`
    endpoint: str
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """Complete HTTP response. `body` is parsed JSON, or text if it is not JSON."""

    status: int
    body: Any
    #: header names are in lower case
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NotSent:
    """Proof that no byte of the request left this machine."""

    error: str
    #: the certificate or the address is wrong, so that another try would fail too
    terminal: bool = False


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Request that was sent, or may have been sent, without a complete response."""

    error: str


Outcome = Reply | NotSent | NoAnswer
