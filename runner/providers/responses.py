"""Turn the outcome of a request into an event. The module `requests` builds the requests.

What a spec does not list is in doubt after a submit: a 5xx, an unknown code or an incomplete response may belong to a
task that is paid for. A query costs nothing, so what a spec does not list there is a failure to retry later.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal

from runner.providers.expressions import compile_expression
from runner.providers.images import has_placeholder
from runner.providers.requests import NoAnswer, NotSent, Outcome, Reply
from runner.tasks.events import (
    Accepted,
    AccountBlocked,
    Event,
    Finished,
    Found,
    Interrupted,
    Pending,
    Rejected,
    RetryableFailure,
)
from runner.tasks.models import Output, TaskError
from runner.tasks.remote_ids import NAMES_TASK, UNREADABLE_ID, parse_remote_id, show_remote_id
from runner.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.providers.spec import Meaning, RemoteState, Spec
    from runner.tasks.models import Task

#: outputs of one task that are downloaded at most
_MAX_OUTPUTS = 64
#: characters of a provider's text that are kept
_MAX_TEXT = 500
#: bounds of a server's Retry-After, seconds
_MIN_WAIT, _MAX_WAIT = 0.5, 900.0
#: milliseconds since the epoch; a larger number is no time
_MAX_TIMESTAMP = 10**15
#: form that an id usually has; other text in its place in a refusal is a message
_USUAL_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
#: characters of a value in the place of an id that are kept for a person
_MAX_RAW = 4000


@dataclass(frozen=True, slots=True)
class ListedTask:
    """One entry of the account's task list."""

    remote_id: str
    reference: str | None
    #: seconds since the epoch; 0.0 if the list does not show it
    created: float
    #: entry as it was received
    raw: Any
    #: request field to the value that the entry echoes
    echo: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ListPage:
    """One complete, readable page of the account's task list."""

    rows: tuple[ListedTask, ...]


@dataclass(frozen=True, slots=True)
class Bill:
    """One charge to the account, in the provider's unit."""

    remote_id: str
    amount: float


@dataclass(frozen=True, slots=True)
class Classification:
    """Meaning of a response, with its error."""

    meaning: Meaning | Literal["unsent"]
    error: TaskError
    #: seconds that the server asks to wait
    wait: float | None = None
    #: the rejection may mean that an earlier submit with the same reference was accepted
    maybe_taken: bool = False


def read_submit(spec: Spec, outcome: Outcome) -> Event:
    """Return the event of a submit: accepted, certainly not accepted, or in doubt."""
    if isinstance(outcome, Reply) and compile_expression(spec.submit.accept).is_true(scope(outcome)):
        value = compile_expression(spec.submit.id).search(scope(outcome))
        id_ = parse_remote_id(value)
        if id_ is None:
            return Interrupted(f"{UNREADABLE_ID}{_raw_text(value)}", hopeless=True)
        return Accepted(id_, f"http {outcome.status}")
    classification = classify_response(spec, outcome, "submit")
    value = compile_expression(spec.submit.id).search(scope(outcome)) if isinstance(outcome, Reply) else None
    named = parse_remote_id(value) if value else None  # some providers send 0 for no id
    if named is not None and _USUAL_ID.match(
        named
    ):  # a rejection with a task id contradicts itself, and the task may have been paid for
        return Interrupted(f"{_describe(classification)}, {NAMES_TASK}{named}")
    match classification.meaning:
        case "doubt" | "absent" | "trouble":
            return Interrupted(_describe(classification), is_busy=is_busy(outcome))
        case "invalid" | "moderation":
            return Rejected(classification.error, classification.maybe_taken)
        case _:
            return _failure_event(classification)


def _raw_text(value: Any) -> str:
    """Return a value that is no id as JSON in ASCII, for a person who looks for the task at the provider."""
    try:
        return json.dumps(value)[:_MAX_RAW]
    except (ValueError, RecursionError):
        return sanitize_reply(value)


def _describe(classification: Classification) -> str:
    parts = (classification.error.code, classification.error.message)
    return " ".join(part for part in parts if part) or classification.meaning


def read_query(spec: Spec, outcome: Outcome, task: Task | None = None) -> Event:
    """Return the event of a query for one task. With `task`, a response about another task is a failure."""
    if not isinstance(outcome, Reply) or not compile_expression(spec.query.valid).is_true(scope(outcome)):
        return query_failure(spec, outcome)
    values = scope(outcome)
    id_ = parse_remote_id(compile_expression(spec.query.id).search(values)) if spec.query.id else None
    if id_ is not None and task is not None and id_ != task.remote_id:
        return RetryableFailure(
            "absent", TaskError("mixed_up", None, f"the provider's answer is about {show_remote_id(id_)}")
        )
    return read_task(spec, compile_expression(spec.query.task).search(values), trace_id(spec, outcome))


def read_many(spec: Spec, tasks: Sequence[Task], outcome: Outcome) -> tuple[dict[int, Event], dict[int, Any]]:
    """Return the events and the task objects of a batched query, by row id.

    A task that the response leaves out is not proved to be absent: it gets a RetryableFailure.
    """
    many = spec.query.many
    items = compile_expression(many.items).search(scope(outcome)) if many and isinstance(outcome, Reply) else None
    if not isinstance(items, list) or many is None:
        failure = query_failure(spec, outcome)
        return {task.id: failure for task in tasks}, {}
    row_ids = {task.remote_id: task.id for task in tasks}
    keyed = ((parse_remote_id(compile_expression(many.key).search(item)), item) for item in items)
    objects = {row_ids[key]: item for key, item in keyed if key in row_ids}
    left_out = RetryableFailure("absent", TaskError("absent", None, "the provider's answer leaves this task out"))
    support_trace = trace_id(spec, outcome)
    read = {id_: read_task(spec, item, support_trace) for id_, item in objects.items()}
    events = {task.id: read.get(task.id, left_out) for task in tasks}
    return events, objects


def read_task(spec: Spec, value: Any, trace: str = "") -> Event:
    """Return the event of one task object. A state that the spec does not know counts as running."""
    raw = compile_expression(spec.query.state).search(value)
    match _remote_state(spec, raw):
        case "succeeded":
            outputs = _outputs(compile_expression(spec.query.outputs).search(value))
            return Finished(outputs) if outputs else Pending(sanitize_reply(raw), settling=True, trace=trace)
        case "failed":
            rules = (rule.means for rule in spec.task_errors if compile_expression(rule.when).is_true(value))
            message = compile_expression(spec.query.error).search(value)
            text = sanitize_reply(message) if message else "the provider gives no reason"
            error = TaskError(next(rules, "provider"), sanitize_reply(raw), text)
            return Rejected(error, billed=spec.failures_billed)
        case None:
            return Pending("" if raw is None else sanitize_reply(raw), unknown_state=True)
        case _:
            return Pending(sanitize_reply(raw))


def _remote_state(spec: Spec, raw: Any) -> RemoteState | None:
    if isinstance(raw, bool) or not isinstance(raw, str | int):
        return None
    text = str(raw)
    return spec.query.map.get(text.lower() if spec.query.ignore_case else text)


def _outputs(items: Any) -> tuple[Output, ...]:
    urls = [item.get("url") for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    texts = [url for url in urls if isinstance(url, str) and url and url.isprintable()][:_MAX_OUTPUTS]
    return tuple(Output(number, url) for number, url in enumerate(dict.fromkeys(texts), start=1))


def read_reference(spec: Spec, task: Task, outcome: Outcome) -> Found | RetryableFailure | AccountBlocked | None:
    """Return the event of a query by reference, or None if the response proves nothing and only the list can."""
    if isinstance(outcome, Reply) and compile_expression(spec.query.valid).is_true(scope(outcome)):
        value, listing = compile_expression(spec.query.task).search(scope(outcome)), spec.reconcile.listing
        reference = compile_expression(listing.reference).search(value) if listing and listing.reference else None
        id_ = parse_remote_id(compile_expression(listing.id).search(value)) if listing else None
        # a host that does not know our reference may answer with any task: only an answer that names it counts
        return Found(id_, "found by reference") if id_ and reference == task.ref else None
    event = query_failure(spec, outcome)
    is_transient = (
        isinstance(outcome, NotSent | NoAnswer)
        or isinstance(event, AccountBlocked)
        or event.kind not in {"trouble", "absent"}
    )
    return event if is_transient else None


def read_page(spec: Spec, outcome: Outcome) -> ListPage | RetryableFailure | AccountBlocked:
    """Return a page of the account's task list, or the event if the response is not a complete, readable page."""
    listing = spec.reconcile.listing
    if (
        listing is None
        or not isinstance(outcome, Reply)
        or not compile_expression(listing.valid).is_true(scope(outcome))
    ):
        return query_failure(spec, outcome)
    rows = []
    for item in compile_expression(listing.items).search(scope(outcome)):
        id_ = parse_remote_id(compile_expression(listing.id).search(item))
        if id_ is None:  # the entry may belong to one of our tasks, so this page proves no absence
            message = "a row of the list has an id that cannot be read"
            return RetryableFailure("trouble", TaskError("unreadable", None, message))
        reference = compile_expression(listing.reference).search(item) if listing.reference else None
        created = _epoch_seconds(compile_expression(listing.created).search(item))
        echo = {name: compile_expression(path).search(item) for name, path in listing.echo.items()}
        rows.append(ListedTask(id_, reference if isinstance(reference, str) else None, created, item, echo))
    return ListPage(tuple(rows))


def _epoch_seconds(value: Any) -> float:
    """Return a time as seconds since the epoch, or 0.0 if it is none.

    A time is seconds or milliseconds since the epoch, as a number or as digits, or RFC 3339 with its zone.
    """
    if isinstance(value, str):
        if re.fullmatch(r"[0-9]{1,15}", value, re.ASCII):
            return _epoch_seconds(int(value))
        try:
            time = datetime.fromisoformat(value[:40])
            return time.timestamp() if time.tzinfo is not None and time.year > 1970 else 0.0  # noqa: PLR2004 - the epoch
        except (ValueError, OverflowError):
            return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _MAX_TIMESTAMP:
        return 0.0
    return value / 1000 if value > 10**11 else float(value)


def read_bills(spec: Spec, outcome: Outcome) -> list[Bill] | RetryableFailure | AccountBlocked:
    """Return a page of the account's charges, or the event if the response is not a valid page."""
    billing = spec.billing
    if (
        billing is None
        or not isinstance(outcome, Reply)
        or not compile_expression(billing.valid).is_true(scope(outcome))
    ):
        return query_failure(spec, outcome)
    items = compile_expression(billing.items).search(scope(outcome)) or []
    pairs = (
        (parse_remote_id(compile_expression(billing.id).search(item)), compile_expression(billing.amount).search(item))
        for item in items
    )
    return [Bill(id_, float(amount)) for id_, amount in pairs if id_ and isinstance(amount, int | float)]


def compare_echo(spec: Spec, body: Mapping[str, Any], value: Any) -> dict[str, bool]:
    """Return, for every request field that the list echoes, whether it came back unchanged.

    Fields with local images are left out: the list never shows what the request held. `without NAME` stands for fields
    that were not sent, and says whether the list shows none of them either.
    """
    listing = spec.reconcile.listing
    if listing is None:
        return {}
    sent = {name: body[name] for name in listing.echo if name in body and not has_placeholder(body[name])}
    same = {name: compile_expression(listing.echo[name]).search(value) == sent[name] for name in sent}
    for rule in listing.without:
        if not any(name in body for name in rule.fields):
            same[f"without {rule.fields[0]}"] = not compile_expression(rule.shown).search(value)
    return same


def proof_of_body(spec: Spec, body: Mapping[str, Any]) -> str:
    """Return a digest of what the list recognises a request by, or "" if it shows our references."""
    listing = spec.reconcile.listing
    fields = listing.proof if listing is not None and listing.reference is None else ()
    return _digest([body.get(name) or None for name in fields]) if fields else ""


def proof_of_row(spec: Spec, row: ListedTask) -> str:
    """Return the digest of what a row shows of its request, which equals that of the body if it came back unchanged."""
    listing = spec.reconcile.listing
    fields = listing.proof if listing is not None and listing.reference is None else ()
    return _digest([row.echo.get(name) or None for name in fields]) if fields else ""


def _digest(values: list[Any]) -> str:
    return blake2b(json.dumps(values, sort_keys=True).encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()


def query_failure(spec: Spec, outcome: Outcome) -> RetryableFailure | AccountBlocked:
    """Return the event of a query without a valid response. It never fails the task itself."""
    classification = classify_response(spec, outcome, "query")
    if classification.meaning in {"invalid", "moderation", "doubt", "trouble"}:
        return RetryableFailure("trouble", classification.error, classification.wait)
    return _failure_event(classification)


def _failure_event(classification: Classification) -> RetryableFailure | AccountBlocked:
    match classification.meaning:
        case "throttled" | "window" | "unsent" | "absent":
            return RetryableFailure(classification.meaning, classification.error, classification.wait)
        case "credentials" | "credit" | "account" | "configuration":
            return AccountBlocked(classification.meaning, classification.error)
        case _:
            return RetryableFailure("trouble", classification.error, classification.wait)


def is_success(spec: Spec, outcome: Outcome, phase: Literal["submit", "query"]) -> bool:
    """Return True if the response is plainly successful, so that no error rule is needed."""
    if not isinstance(outcome, Reply):
        return False
    values, listing = scope(outcome), spec.reconcile.listing
    if phase == "submit":
        return compile_expression(spec.submit.accept).is_true(values)
    if compile_expression(spec.query.valid).is_true(values):
        return True
    return listing is not None and compile_expression(listing.valid).is_true(values)


def classify_response(spec: Spec, outcome: Outcome, phase: Literal["submit", "query"]) -> Classification:
    """Return the meaning of an outcome that is not plainly successful."""
    if isinstance(outcome, NotSent):
        error = TaskError("network", None, sanitize_reply(outcome.error))
        return Classification("configuration" if outcome.terminal else "unsent", error)
    if isinstance(outcome, NoAnswer):
        error = TaskError("no_answer", None, sanitize_reply(outcome.error))
        return Classification("doubt" if phase == "submit" else "trouble", error)
    values, wait = scope(outcome), retry_after(outcome)
    if phase == "submit" and is_unclear(outcome.status):
        return Classification("doubt", error_from_reply(outcome, "unclear"), wait)
    for rule in spec.errors:
        if rule.phase in {None, phase} and compile_expression(rule.when).is_true(values):
            return Classification(rule.means, error_from_reply(outcome, rule.means), wait, rule.maybe_taken)
    meaning: Meaning = "doubt" if phase == "submit" else "throttled" if outcome.status == 429 else "trouble"  # noqa: PLR2004
    return Classification(meaning, error_from_reply(outcome, "unclear"), wait)


def is_busy(outcome: Outcome) -> bool:
    """Return True for a whole answer that says, in the API's form, that the provider takes no more at present.

    It does not prove that nothing was accepted: a gateway may have tried the request before.
    """
    return isinstance(outcome, Reply) and outcome.status == 429 and isinstance(outcome.body, dict)  # noqa: PLR2004 - HTTP


def is_unclear(status: int) -> bool:
    """Return True for 3xx and 5xx: the paid request may have been processed, whatever the body says."""
    return status >= 500 or 300 <= status < 400  # noqa: PLR2004 - classes of HTTP status codes


def error_from_reply(reply: Reply, reason: str) -> TaskError:
    """Return the error code and message of a response, whichever envelope it uses."""
    body: dict[str, Any] = reply.body if isinstance(reply.body, dict) else {}
    error = body.get("error")
    inner: dict[str, Any] = error if isinstance(error, dict) else body
    code = inner.get("code") or body.get("code") or f"http {reply.status}"
    message = next((inner[key] for key in ("msg", "message", "detail") if isinstance(inner.get(key), str)), None)
    text = message if message is not None else reply.body if isinstance(reply.body, str) else f"http {reply.status}"
    return TaskError(reason, sanitize_reply(code), sanitize_reply(text))


def scope(reply: Reply) -> dict[str, Any]:
    """Return the values that the expressions of a spec are evaluated on."""
    return {"status": reply.status, "headers": dict(reply.headers), "body": reply.body}


def trace_id(spec: Spec, outcome: Outcome) -> str:
    """Return the trace id of a response, which the provider's support asks for, or an empty string."""
    if spec.trace is None or not isinstance(outcome, Reply):
        return ""
    value = compile_expression(spec.trace).search(scope(outcome))
    return "" if value is None else sanitize_reply(value)[:100]


def server_time(reply: Reply) -> float | None:
    """Return the server's clock from the `Date` header in seconds since the epoch, or None."""
    return _parse_http_date(reply.headers.get("date", ""))


def retry_after(reply: Reply) -> float | None:
    """Return the seconds of the Retry-After header, between 0.5 s and 15 min, or None if it is missing or invalid."""
    return parse_retry_after(reply.headers.get("retry-after", ""), reply.headers.get("date", ""))


def parse_retry_after(text: str, date: str) -> float | None:
    """Return the seconds of a Retry-After value, or None if it is invalid.

    A value is ASCII digits, or a date, which is compared with the server's own clock in the same response's Date.
    """
    if re.fullmatch(r"[0-9]{1,6}", text, re.ASCII):
        return min(_MAX_WAIT, max(_MIN_WAIT, float(text)))
    until, now = _parse_http_date(text), _parse_http_date(date)
    return None if until is None or now is None else min(_MAX_WAIT, max(_MIN_WAIT, until - now))


def _parse_http_date(text: str) -> float | None:
    """Return a date in any of HTTP's three forms as seconds since the epoch, or None."""
    try:
        found = parsedate_to_datetime(text) if text.isascii() else None
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return None if found is None else (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def sanitize_reply(value: Any) -> str:
    """Return a provider's text fit for a database and a terminal: bounded, without control or format characters."""
    try:
        text = str(value)[: 2 * _MAX_TEXT].encode("utf-8", "backslashreplace").decode()
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list nested a thousand deep
        text = f"unreadable {type(value).__name__}"
    return sanitize(text, _MAX_TEXT, collapse=False).strip()
