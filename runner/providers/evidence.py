"""The evidence table: what an answer that is not plainly good proves (reliability.md section 7).

The default for anything unlisted on a submit is doubt: a 5xx, an unknown code or a torn answer may have been paid for.
A query proves nothing about money, so there everything unlisted is trouble: again later.
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
_LONGEST = 500
#: seconds within which a server's wish for a pause is kept
_LEAST, _MOST = 0.5, 900.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer means, why, and what it looked like."""

    meaning: Meaning | Literal["unsent"]
    fault: Fault
    wait: float | None = None
    maybe_taken: bool = False


def is_good(spec: Spec, outcome: Outcome, phase: Literal["submit", "query"]) -> bool:
    """Whether the answer is plainly what was asked for, so that no rule need be tried."""
    if not isinstance(outcome, Reply):
        return False
    seen, listing = scope(outcome), spec.look_up.listing
    if phase == "submit":
        return compiled(spec.submit.accept).holds(seen)
    return compiled(spec.query.valid).holds(seen) or (listing is not None and compiled(listing.valid).holds(seen))


def judge(spec: Spec, outcome: Outcome, phase: Literal["submit", "query"]) -> Verdict:
    """The meaning of an outcome that was not accepted as good."""
    match outcome:
        case NotSent(error, terminal):
            return Verdict("configuration" if terminal else "unsent", Fault("network", None, clean(error)))
        case NoAnswer(error):
            return Verdict("doubt" if phase == "submit" else "trouble", Fault("no_answer", None, clean(error)))
        case Reply():
            return _by_rule(spec, outcome, phase)


def _by_rule(spec: Spec, reply: Reply, phase: str) -> Verdict:
    seen = scope(reply)
    if phase == "submit" and is_unclear(reply.status):
        return Verdict("doubt", fault_of(reply, "unclear"), retry_after(reply))
    for rule in spec.errors:
        if rule.phase in {None, phase} and compiled(rule.when).holds(seen):
            return Verdict(rule.means, fault_of(reply, rule.means), retry_after(reply), rule.maybe_taken)
    meaning: Meaning = "doubt" if phase == "submit" else "throttled" if reply.status == 429 else "trouble"  # noqa: PLR2004
    return Verdict(meaning, fault_of(reply, "unclear"), retry_after(reply))


def is_unclear(status: int) -> bool:
    """Whether a paid request may have gone through whatever the body says: an earlier try, or on its way elsewhere."""
    return status >= 500 or 300 <= status < 400  # noqa: PLR2004 - as HTTP has it


def server_time(reply: Reply) -> float | None:
    """The server's clock by its `Date` header, seconds since the epoch; None where it does not say."""
    return _moment(reply.headers.get("date", ""))


def scope(reply: Reply) -> dict[str, Any]:
    """What the expressions of a spec may look at."""
    return {"status": reply.status, "headers": dict(reply.headers), "body": reply.body}


def fault_of(reply: Reply, reason: str) -> Fault:
    """The business code and message of an answer, in whichever envelope it came."""
    body: dict[str, Any] = reply.body if isinstance(reply.body, dict) else {}
    error = body.get("error")
    inner: dict[str, Any] = error if isinstance(error, dict) else body
    code = inner.get("code") or body.get("code") or f"http {reply.status}"
    message = next((inner[key] for key in ("msg", "message", "detail") if isinstance(inner.get(key), str)), None)
    text = message if message is not None else reply.body if isinstance(reply.body, str) else f"http {reply.status}"
    return Fault(reason, clean(code), clean(text))


def clean(value: Any) -> str:
    """Text from the other side, fit for a database and a terminal: bounded, no control or format characters."""
    try:
        text = str(value)[: 2 * _LONGEST].encode("utf-8", "backslashreplace").decode()
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list nested a thousand deep
        text = f"unreadable {type(value).__name__}"
    return "".join(char if char.isprintable() else " " for char in text)[:_LONGEST].strip()


def remote_id(value: Any) -> str | None:
    """A provider's id: text or a whole number, 1 to 128 of `[A-Za-z0-9._:-]`, else None."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value) if isinstance(value, str) or abs(value) < 10**128 else ""
    return text if _ID.match(text) and text.strip(".") else None


def retry_after(reply: Reply) -> float | None:
    """Seconds the server asks for, within 0.5 s and 15 min: ASCII digits, or a date by the server's own clock (FA6)."""
    return waiting(reply.headers.get("retry-after", ""), reply.headers.get("date", ""))


def waiting(text: str, date: str) -> float | None:
    """The seconds that a Retry-After stands for, beside that answer's Date; None: it says nothing one can believe."""
    if re.fullmatch(r"[0-9]{1,6}", text, re.ASCII):
        return min(_MOST, max(_LEAST, float(text)))
    until, now = _moment(text), _moment(date)
    return None if until is None or now is None else min(_MOST, max(_LEAST, until - now))


def _moment(text: str) -> float | None:
    """Any of HTTP's three forms of a date, seconds since the epoch."""
    try:
        found = parsedate_to_datetime(text) if text.isascii() else None
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return None if found is None else (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
