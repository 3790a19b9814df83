"""Classify the responses that are not plainly successful, by the error rules of a spec.

An unlisted response to a submit means doubt: a 5xx, an unknown code or a cut response may have been paid for.
A query says nothing about money, so there an unlisted response means trouble: the query is repeated later.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal

from runner.lifecycle.task import Fault
from runner.providers.exchange import NoAnswer, NotSent, Reply
from runner.providers.expressions import compiled

if TYPE_CHECKING:
    from runner.providers.exchange import Outcome
    from runner.providers.spec import Meaning, Spec

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
#: characters of a provider's text that are kept
_LONGEST = 500
#: bounds of a server's Retry-After, seconds
_LEAST, _MOST = 0.5, 900.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Meaning of a response, with its error."""

    meaning: Meaning | Literal["unsent"]
    fault: Fault
    #: seconds that the server asks to wait
    wait: float | None = None
    #: the rejection may mean that an earlier submit with the same reference was accepted
    maybe_taken: bool = False


def is_good(spec: Spec, outcome: Outcome, phase: Literal["submit", "query"]) -> bool:
    """Return True if the response is plainly successful, so that no error rule is needed."""
    if not isinstance(outcome, Reply):
        return False
    values, listing = scope(outcome), spec.look_up.listing
    if phase == "submit":
        return compiled(spec.submit.accept).holds(values)
    if compiled(spec.query.valid).holds(values):
        return True
    return listing is not None and compiled(listing.valid).holds(values)


def judge(spec: Spec, outcome: Outcome, phase: Literal["submit", "query"]) -> Verdict:
    """Return the meaning of an outcome that is not plainly successful."""
    match outcome:
        case NotSent(error, terminal):
            return Verdict("configuration" if terminal else "unsent", Fault("network", None, clean(error)))
        case NoAnswer(error):
            return Verdict("doubt" if phase == "submit" else "trouble", Fault("no_answer", None, clean(error)))
        case Reply():
            return _by_rule(spec, outcome, phase)


def _by_rule(spec: Spec, reply: Reply, phase: str) -> Verdict:
    values = scope(reply)
    if phase == "submit" and is_unclear(reply.status):
        return Verdict("doubt", fault_of(reply, "unclear"), retry_after(reply))
    for rule in spec.errors:
        if rule.phase in {None, phase} and compiled(rule.when).holds(values):
            return Verdict(rule.means, fault_of(reply, rule.means), retry_after(reply), rule.maybe_taken)
    meaning: Meaning = "doubt" if phase == "submit" else "throttled" if reply.status == 429 else "trouble"  # noqa: PLR2004
    return Verdict(meaning, fault_of(reply, "unclear"), retry_after(reply))


def is_unclear(status: int) -> bool:
    """Return True for 3xx and 5xx: the paid request may have been processed, whatever the body says."""
    return status >= 500 or 300 <= status < 400  # noqa: PLR2004 - classes of HTTP status codes


def server_time(reply: Reply) -> float | None:
    """Return the server's clock from the `Date` header in seconds since the epoch, or None."""
    return _moment(reply.headers.get("date", ""))


def scope(reply: Reply) -> dict[str, Any]:
    """Return the values that the expressions of a spec are evaluated on."""
    return {"status": reply.status, "headers": dict(reply.headers), "body": reply.body}


def fault_of(reply: Reply, reason: str) -> Fault:
    """Return the error code and message of a response, whichever envelope it uses."""
    body: dict[str, Any] = reply.body if isinstance(reply.body, dict) else {}
    error = body.get("error")
    inner: dict[str, Any] = error if isinstance(error, dict) else body
    code = inner.get("code") or body.get("code") or f"http {reply.status}"
    message = next((inner[key] for key in ("msg", "message", "detail") if isinstance(inner.get(key), str)), None)
    text = message if message is not None else reply.body if isinstance(reply.body, str) else f"http {reply.status}"
    return Fault(reason, clean(code), clean(text))


def clean(value: Any) -> str:
    """Return a provider's text fit for a database and a terminal: bounded, without control or format characters."""
    try:
        text = str(value)[: 2 * _LONGEST].encode("utf-8", "backslashreplace").decode()
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list nested a thousand deep
        text = f"unreadable {type(value).__name__}"
    return "".join(char if char.isprintable() else " " for char in text)[:_LONGEST].strip()


def remote_id(value: Any) -> str | None:
    """Return an id of text or a whole number as text, or None unless it is 1 to 128 of `[A-Za-z0-9._:-]`."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value) if isinstance(value, str) or abs(value) < 10**128 else ""
    return text if _ID.match(text) and text.strip(".") else None


def retry_after(reply: Reply) -> float | None:
    """Return the seconds of the Retry-After header, between 0.5 s and 15 min, or None if it is missing or invalid."""
    return waiting(reply.headers.get("retry-after", ""), reply.headers.get("date", ""))


def waiting(text: str, date: str) -> float | None:
    """Return the seconds of a Retry-After value, or None if it is invalid.

    A value is ASCII digits, or a date, which is compared with the server's own clock in the same response's Date.
    """
    if re.fullmatch(r"[0-9]{1,6}", text, re.ASCII):
        return min(_MOST, max(_LEAST, float(text)))
    until, now = _moment(text), _moment(date)
    return None if until is None or now is None else min(_MOST, max(_LEAST, until - now))


def _moment(text: str) -> float | None:
    """Return a date in any of HTTP's three forms as seconds since the epoch, or None."""
    try:
        found = parsedate_to_datetime(text) if text.isascii() else None
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return None if found is None else (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
