"""An outcome to an event: the way back of `dialect`."""

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

#: outputs of one task that are fetched at the most
_MOST_OUTPUTS = 64
#: what is larger is no time, in milliseconds since the epoch
_LATEST = 10**15


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the account's list."""

    remote_id: str
    reference: str | None
    #: seconds since the epoch; 0.0 where the list does not say
    created: float
    #: the line as it came
    value: Any
    #: request field to what the line shows of it
    echo: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bill:
    """One charge, in the provider's unit."""

    remote_id: str
    amount: float


@dataclass(frozen=True, slots=True)
class Page:
    """One clean page of the account's list."""

    rows: tuple[Row, ...]


def read_submit(spec: Spec, outcome: Outcome) -> Event:
    """What came of a paid request: accepted, definitely not accepted, or in doubt."""
    if isinstance(outcome, Reply) and compiled(spec.submit.accept).holds(scope(outcome)):
        return _accepted(compiled(spec.submit.id).search(scope(outcome)), outcome)
    verdict = judge(spec, outcome, "submit")
    named = _named(spec, outcome)
    if named is not None:  # a refusal that names a task is none: it says two things, and one of them was paid for
        return Interrupted(f"{_described(verdict)}, and yet it names a task: {named}")
    match verdict.meaning:
        case "doubt" | "absent" | "trouble":
            return Interrupted(_described(verdict))
        case "invalid" | "moderation":
            return Refused(verdict.fault, verdict.maybe_taken)
        case _:
            return _setback(verdict)


def _named(spec: Spec, outcome: Outcome) -> str | None:
    """The id in an answer that was not accepted; nought is what some put where there is none."""
    found = compiled(spec.submit.id).search(scope(outcome)) if isinstance(outcome, Reply) else None
    return remote_id(found) if found else None


def _accepted(value: Any, reply: Reply) -> Event:
    found = remote_id(value)
    if found is None:
        return Interrupted(f"accepted with an id that is none: {clean(value)}", hopeless=True)
    return Accepted(found, f"http {reply.status}")


def read_query(spec: Spec, outcome: Outcome, task: Task | None = None) -> Event:
    """What the answer to a question about one task says."""
    if not isinstance(outcome, Reply) or not compiled(spec.query.valid).holds(scope(outcome)):
        return query_setback(spec, outcome)
    seen = scope(outcome)
    shown = remote_id(compiled(spec.query.id).search(seen)) if spec.query.id else None
    if shown is not None and task is not None and shown != task.remote_id:
        return Setback("absent", Fault("mixed_up", None, f"the provider's answer is about {shown}"))
    return read_task(spec, compiled(spec.query.task).search(seen), trace(spec, outcome))


def trace(spec: Spec, outcome: Outcome) -> str:
    """What the provider's support will ask for, where an answer has it."""
    if spec.trace is None or not isinstance(outcome, Reply):
        return ""
    found = compiled(spec.trace).search(scope(outcome))
    return "" if found is None else clean(found)[:100]


def read_many(spec: Spec, tasks: Sequence[Task], outcome: Outcome) -> tuple[dict[int, Event], dict[int, Any]]:
    """Events and objects by our row id; for a task that the answer leaves out nothing is proved (FV6, FV7)."""
    many = spec.query.many
    items = compiled(many.items).search(scope(outcome)) if many and isinstance(outcome, Reply) else None
    if not isinstance(items, list) or many is None:
        setback = query_setback(spec, outcome)
        return {task.id: setback for task in tasks}, {}
    ours = {task.remote_id: task.id for task in tasks}
    keyed = ((remote_id(compiled(many.key).search(item)), item) for item in items)
    objects = {ours[key]: item for key, item in keyed if key in ours}
    left_out = Setback("absent", Fault("absent", None, "the provider's answer leaves this task out"))
    mark = trace(spec, outcome)
    events = {task.id: read_task(spec, objects[task.id], mark) if task.id in objects else left_out for task in tasks}
    return events, objects


def read_task(spec: Spec, value: Any, trace: str = "") -> Event:
    """What one task's object says; an unknown state is treated as running (FV3)."""
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


def _outputs(found: Any) -> tuple[Output, ...]:
    urls = [item.get("url") for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    texts = [url for url in urls if isinstance(url, str) and url and url.isprintable()][:_MOST_OUTPUTS]
    return tuple(Output(number, url) for number, url in enumerate(dict.fromkeys(texts), start=1))


def _task_fault(spec: Spec, value: Any, raw: Any) -> Fault:
    reason = next((rule.means for rule in spec.task_errors if compiled(rule.when).holds(value)), "provider")
    message = compiled(spec.query.error).search(value)
    return Fault(reason, clean(raw), clean(message) if message else "the provider gives no reason")


def query_setback(spec: Spec, outcome: Outcome) -> Setback | Blocked:
    """A question that was not answered: never a task's failure."""
    verdict = judge(spec, outcome, "query")
    if verdict.meaning in {"invalid", "moderation", "doubt", "trouble"}:
        return Setback("trouble", verdict.fault, verdict.wait)
    return _setback(verdict)


def _setback(verdict: Verdict) -> Setback | Blocked:
    match verdict.meaning:
        case "throttled" | "window" | "unsent" | "absent":
            return Setback(verdict.meaning, verdict.fault, verdict.wait)
        case "credentials" | "credit" | "account" | "configuration":
            return Blocked(verdict.meaning, verdict.fault)
        case _:
            return Setback("trouble", verdict.fault, verdict.wait)


def read_reference(spec: Spec, task: Task, outcome: Outcome) -> Found | Setback | Blocked | None:
    """Whether the provider knows our reference; None: this answer says nothing, only a list can."""
    if isinstance(outcome, Reply) and compiled(spec.query.valid).holds(scope(outcome)):
        value = compiled(spec.query.task).search(scope(outcome))
        return _found(spec, task, value)
    event = query_setback(spec, outcome)
    transient = (
        isinstance(outcome, NotSent | NoAnswer) or isinstance(event, Blocked) or event.kind not in {"trouble", "absent"}
    )
    return event if transient or outcome.status >= 500 else None  # type: ignore[union-attr]  # noqa: PLR2004


def _found(spec: Spec, task: Task, value: Any) -> Found | None:
    listing = spec.look_up.listing
    theirs = compiled(listing.reference).search(value) if listing and listing.reference else None
    id_ = remote_id(compiled(listing.id).search(value)) if listing else None
    return Found(id_, "found by reference") if id_ and (theirs is None or theirs == task.ref) else None


def read_page(spec: Spec, outcome: Outcome) -> Page | Setback | Blocked:
    """A clean page, or why there is none."""
    listing = spec.look_up.listing
    if listing is None or not isinstance(outcome, Reply) or not compiled(listing.valid).holds(scope(outcome)):
        return query_setback(spec, outcome)
    items = compiled(listing.items).search(scope(outcome))
    rows = [_row(spec, item) for item in items]
    if None in rows:
        # it may be ours, so that its absence cannot be believed
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
    """A time in seconds or milliseconds since the epoch, as seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _LATEST:
        return 0.0
    return value / 1000 if value > 10**11 else float(value)


def read_bills(spec: Spec, outcome: Outcome) -> list[Bill] | Setback | Blocked:
    """A clean page of charges, or why there is none."""
    billing = spec.billing
    if billing is None or not isinstance(outcome, Reply) or not compiled(billing.valid).holds(scope(outcome)):
        return query_setback(spec, outcome)
    items = compiled(billing.items).search(scope(outcome)) or []
    found = ((remote_id(compiled(billing.id).search(item)), compiled(billing.amount).search(item)) for item in items)
    return [Bill(id_, float(amount)) for id_, amount in found if id_ and isinstance(amount, int | float)]


def echoed(spec: Spec, body: Mapping[str, Any], value: Any) -> dict[str, bool]:
    """For each field the list echoes and the request held: did it come back verbatim (reliability.md section 10).

    Not so for local pictures: what is shown of them is never what a request holds.
    """
    echo = spec.look_up.listing.echo if spec.look_up.listing else {}
    held = {name: body[name] for name in echo if name in body and not holds_mark(body[name])}
    return {name: compiled(echo[name]).search(value) == held[name] for name in held}


def _described(verdict: Verdict) -> str:
    parts = (verdict.fault.code, verdict.fault.message)
    return " ".join(part for part in parts if part) or verdict.meaning
