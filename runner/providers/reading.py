"""Turn the outcome of a request into an event. The module `requests` builds the requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.lifecycle.events import (
    Accepted,
    Blocked,
    Event,
    Finished,
    Found,
    Interrupted,
    Pending,
    Refused,
    Setback,
)
from runner.lifecycle.task import Fault, Output
from runner.providers.evidence import Verdict, clean, judge, remote_id, scope
from runner.providers.exchange import NoAnswer, NotSent, Outcome, Reply
from runner.providers.expressions import compiled
from runner.providers.pictures import holds_mark

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.lifecycle.task import Task
    from runner.providers.spec import Spec, Word

#: outputs of one task that are downloaded at most
_MOST_OUTPUTS = 64
#: milliseconds since the epoch; a larger number is no time
_LATEST = 10**15


@dataclass(frozen=True, slots=True)
class Row:
    """One entry of the account's task list."""

    remote_id: str
    reference: str | None
    #: seconds since the epoch; 0.0 if the list does not show it
    created: float
    #: entry as it was received
    value: Any
    #: request field to the value that the entry echoes
    echo: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bill:
    """One charge to the account, in the provider's unit."""

    remote_id: str
    amount: float


@dataclass(frozen=True, slots=True)
class Page:
    """One complete, readable page of the account's task list."""

    rows: tuple[Row, ...]


def read_submit(spec: Spec, outcome: Outcome) -> Event:
    """Return the event of a submit: accepted, certainly not accepted, or in doubt."""
    if isinstance(outcome, Reply) and compiled(spec.submit.accept).holds(scope(outcome)):
        value = compiled(spec.submit.id).search(scope(outcome))
        id_ = remote_id(value)
        if id_ is None:
            return Interrupted(f"accepted with an id that is none: {clean(value)}", hopeless=True)
        return Accepted(id_, f"http {outcome.status}")
    classification = judge(spec, outcome, "submit")
    named = _named(spec, outcome)
    if named is not None:  # a rejection with a task id contradicts itself, and the task may have been paid for
        return Interrupted(f"{_described(classification)}, and yet it names a task: {named}")
    match classification.meaning:
        case "doubt" | "absent" | "trouble":
            return Interrupted(_described(classification))
        case "invalid" | "moderation":
            return Refused(classification.fault, classification.maybe_taken)
        case _:
            return _setback(classification)


def _named(spec: Spec, outcome: Outcome) -> str | None:
    """Return the task id in a response that does not accept the submit, or None. Some providers send 0 for no id."""
    value = compiled(spec.submit.id).search(scope(outcome)) if isinstance(outcome, Reply) else None
    return remote_id(value) if value else None


def read_query(spec: Spec, outcome: Outcome, task: Task | None = None) -> Event:
    """Return the event of a query for one task. With `task`, a response about another task is a failure."""
    if not isinstance(outcome, Reply) or not compiled(spec.query.valid).holds(scope(outcome)):
        return query_setback(spec, outcome)
    values = scope(outcome)
    id_ = remote_id(compiled(spec.query.id).search(values)) if spec.query.id else None
    if id_ is not None and task is not None and id_ != task.remote_id:
        return Setback("absent", Fault("mixed_up", None, f"the provider's answer is about {id_}"))
    return read_task(spec, compiled(spec.query.task).search(values), trace(spec, outcome))


def trace(spec: Spec, outcome: Outcome) -> str:
    """Return the trace id of a response, which the provider's support asks for, or an empty string."""
    if spec.trace is None or not isinstance(outcome, Reply):
        return ""
    value = compiled(spec.trace).search(scope(outcome))
    return "" if value is None else clean(value)[:100]


def read_many(spec: Spec, tasks: Sequence[Task], outcome: Outcome) -> tuple[dict[int, Event], dict[int, Any]]:
    """Return the events and the task objects of a batched query, by row id.

    A task that the response leaves out is not proved to be absent: it gets a RetryableFailure.
    """
    many = spec.query.many
    items = compiled(many.items).search(scope(outcome)) if many and isinstance(outcome, Reply) else None
    if not isinstance(items, list) or many is None:
        failure = query_setback(spec, outcome)
        return {task.id: failure for task in tasks}, {}
    row_ids = {task.remote_id: task.id for task in tasks}
    keyed = ((remote_id(compiled(many.key).search(item)), item) for item in items)
    objects = {row_ids[key]: item for key, item in keyed if key in row_ids}
    left_out = Setback("absent", Fault("absent", None, "the provider's answer leaves this task out"))
    support_trace = trace(spec, outcome)
    read = {id_: read_task(spec, item, support_trace) for id_, item in objects.items()}
    events = {task.id: read.get(task.id, left_out) for task in tasks}
    return events, objects


def read_task(spec: Spec, value: Any, trace: str = "") -> Event:
    """Return the event of one task object. A state that the spec does not know counts as running."""
    raw = compiled(spec.query.state).search(value)
    match _word(spec, raw):
        case "succeeded":
            outputs = _outputs(compiled(spec.query.outputs).search(value))
            return Finished(outputs) if outputs else Pending(clean(raw), settling=True, trace=trace)
        case "failed":
            return Refused(_task_fault(spec, value, raw), billed=spec.failures_billed)
        case None:
            return Pending("" if raw is None else clean(raw), strange=True)
        case _:
            return Pending(clean(raw))


def _word(spec: Spec, raw: Any) -> Word | None:
    if isinstance(raw, bool) or not isinstance(raw, str | int):
        return None
    text = str(raw)
    return spec.query.map.get(text.lower() if spec.query.ignore_case else text)


def _outputs(items: Any) -> tuple[Output, ...]:
    urls = [item.get("url") for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    texts = [url for url in urls if isinstance(url, str) and url and url.isprintable()][:_MOST_OUTPUTS]
    return tuple(Output(number, url) for number, url in enumerate(dict.fromkeys(texts), start=1))


def _task_fault(spec: Spec, value: Any, raw: Any) -> Fault:
    reason = next((rule.means for rule in spec.task_errors if compiled(rule.when).holds(value)), "provider")
    message = compiled(spec.query.error).search(value)
    return Fault(reason, clean(raw), clean(message) if message else "the provider gives no reason")


def query_setback(spec: Spec, outcome: Outcome) -> Setback | Blocked:
    """Return the event of a query without a valid response. It never fails the task itself."""
    classification = judge(spec, outcome, "query")
    if classification.meaning in {"invalid", "moderation", "doubt", "trouble"}:
        return Setback("trouble", classification.fault, classification.wait)
    return _setback(classification)


def _setback(classification: Verdict) -> Setback | Blocked:
    match classification.meaning:
        case "throttled" | "window" | "unsent" | "absent":
            return Setback(classification.meaning, classification.fault, classification.wait)
        case "credentials" | "credit" | "account" | "configuration":
            return Blocked(classification.meaning, classification.fault)
        case _:
            return Setback("trouble", classification.fault, classification.wait)


def read_reference(spec: Spec, task: Task, outcome: Outcome) -> Found | Setback | Blocked | None:
    """Return the event of a query by reference, or None if the response proves nothing and only the list can."""
    if isinstance(outcome, Reply) and compiled(spec.query.valid).holds(scope(outcome)):
        value, listing = compiled(spec.query.task).search(scope(outcome)), spec.look_up.listing
        reference = compiled(listing.reference).search(value) if listing and listing.reference else None
        id_ = remote_id(compiled(listing.id).search(value)) if listing else None
        return Found(id_, "found by reference") if id_ and (reference is None or reference == task.ref) else None
    event = query_setback(spec, outcome)
    is_transient = (
        isinstance(outcome, NotSent | NoAnswer) or isinstance(event, Blocked) or event.kind not in {"trouble", "absent"}
    )
    return event if is_transient or outcome.status >= 500 else None  # type: ignore[union-attr]  # noqa: PLR2004


def read_page(spec: Spec, outcome: Outcome) -> Page | Setback | Blocked:
    """Return a page of the account's task list, or the event if the response is not a complete, readable page."""
    listing = spec.look_up.listing
    if listing is None or not isinstance(outcome, Reply) or not compiled(listing.valid).holds(scope(outcome)):
        return query_setback(spec, outcome)
    items = compiled(listing.items).search(scope(outcome))
    rows = [_row(spec, item) for item in items]
    if None in rows:
        # the entry may belong to one of our tasks, so this page proves no absence
        return Setback("trouble", Fault("unreadable", None, "a row of the list has an id that cannot be read"))
    return Page(tuple(row for row in rows if row is not None))


def _row(spec: Spec, item: Any) -> Row | None:
    listing = spec.look_up.listing
    id_ = remote_id(compiled(listing.id).search(item)) if listing else None
    if listing is None or id_ is None:
        return None
    reference = compiled(listing.reference).search(item) if listing.reference else None
    return Row(
        id_,
        reference if isinstance(reference, str) else None,
        _seconds(compiled(listing.created).search(item)),
        item,
        {name: compiled(path).search(item) for name, path in listing.echo.items()},
    )


def _seconds(value: Any) -> float:
    """Return a time in seconds or milliseconds since the epoch as seconds, or 0.0 if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _LATEST:
        return 0.0
    return value / 1000 if value > 10**11 else float(value)


def read_bills(spec: Spec, outcome: Outcome) -> list[Bill] | Setback | Blocked:
    """Return a page of the account's charges, or the event if the response is not a valid page."""
    billing = spec.billing
    if billing is None or not isinstance(outcome, Reply) or not compiled(billing.valid).holds(scope(outcome)):
        return query_setback(spec, outcome)
    items = compiled(billing.items).search(scope(outcome)) or []
    pairs = ((remote_id(compiled(billing.id).search(item)), compiled(billing.amount).search(item)) for item in items)
    return [Bill(id_, float(amount)) for id_, amount in pairs if id_ and isinstance(amount, int | float)]


def echoed(spec: Spec, body: Mapping[str, Any], value: Any) -> dict[str, bool]:
    """Return, for every request field that the list echoes, whether it came back unchanged.

    Fields with local images are left out: the list never shows what the request held.
    """
    echo = spec.look_up.listing.echo if spec.look_up.listing else {}
    sent = {name: body[name] for name in echo if name in body and not holds_mark(body[name])}
    return {name: compiled(echo[name]).search(value) == sent[name] for name in sent}


def _described(classification: Verdict) -> str:
    parts = (classification.fault.code, classification.fault.message)
    return " ".join(part for part in parts if part) or classification.meaning
