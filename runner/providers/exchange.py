"""What passes between the interpreter and the gateway: a request on the way out, an outcome on the way back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

#: what a request is for: it decides the connection, the deadline, and what a silence means
Phase = Literal["submit", "query", "lookup", "token"]


@dataclass(frozen=True, slots=True)
class Request:
    """One call to a provider's API; the path is percent-encoded already, the body is JSON."""

    phase: Phase
    method: str
    path: str
    #: limiter bucket it draws from, e.g. `submit` or `query`
    endpoint: str
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer, whole: `body` is parsed JSON, or text where it is none."""

    status: int
    body: Any
    #: lower-case names
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NotSent:
    """Proof that no byte of the request left this machine."""

    error: str
    #: the certificate or the address is wrong, so that trying again is in vain
    terminal: bool = False


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The request left, or may have left, and no whole answer came back."""

    error: str


Outcome = Reply | NotSent | NoAnswer
