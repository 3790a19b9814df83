"""Guarantee classes and facts in words, and as the JSON objects that the commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

from runner.providers.guarantee import BY_CONTENT, CLASS_NAMES, advice, claimed_class
from runner.report.results import iso_timestamp
from runner.text import format_duration, pluralize, sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from runner.providers.guarantee import Guarantee
    from runner.providers.spec import Spec
    from runner.tasks.fact import Fact

#: characters of a stored text that are shown
_MAX_TEXT = 160
#: seconds below which something was seen just now
_JUST_NOW = 60.0
#: refusals and operations that are listed, and characters of a name
_MAX_LISTED = 12
_MAX_NAME = 40
#: columns of the name of a fact
_MAX_LABEL = 21
#: names of facts in messages
_WORDS = {
    "reference_in_list": "references in the list",
    "reference_by_query": "answers by reference",
    "unknown_reference": "what an unknown reference gives",
    "own_rows": "own tasks in the list",
    "capacity": "the list's length",
    "lag": "the list's lag",
    "times": "the list's times",
}


def class_name(level: int) -> str:
    """Return a class with its word, such as `class 2 by reference`."""
    return f"class {level} {CLASS_NAMES[level]}"


def class_text(found: Guarantee, now: float) -> str:
    """Return the class with what it rests on, such as `class 2 by reference (measured 3 d ago on 41 tasks)`."""
    since = "" if found.measured_at is None else age_text(now - found.measured_at)
    name = class_name(found.level)
    match found.basis:
        case "measured":
            tasks = f" on {pluralize(found.tasks, 'task')}" if found.tasks else ""
            return f"{name} (measured {since}{tasks})"
        case "declared":
            return f"{name} (in part by your word; {since})"
        case "contradicted":
            return f"{name}: {sanitize(found.why, _MAX_TEXT)}; seen {since}"
        case "claimed":
            return f"{name}: it keeps no record that can be read"
        case "unknown" if since:
            return f"not known any more: last measured {since}"
        case "unknown":
            words = ", ".join(_missing_words(found))
            return f"not all is known yet: {words}" if found.tasks else "nothing known yet"
    assert_never(found.basis)


def claim_text(level: int) -> str:
    """Return a claim so that nobody takes it for a class."""
    return class_name(level) if level == 0 else f"{class_name(level)}, if it keeps its word"


def age_text(seconds: float) -> str:
    """Return an age in its largest unit: `just now`, `5 min ago`, `3 d ago`."""
    if seconds < _JUST_NOW:
        return "just now"
    number, unit = format_duration(seconds).split()[:2]
    return f"{number} {unit} ago"


def guarantee_dict(found: Guarantee, provider: str, now: float) -> dict[str, Any]:
    """Return a class as the JSON object that the commands print."""
    return {
        "provider": provider,
        "operation": found.operation,
        "model": found.model or None,
        "class": found.level,
        "name": CLASS_NAMES[found.level],
        "basis": found.basis,
        "claimed": found.claimed,
        "tasks": found.tasks,
        "measured_at": None if found.measured_at is None else iso_timestamp(found.measured_at),
        "missing": list(found.missing),
        "why": sanitize(found.why, _MAX_TEXT) or None,
        "text": class_text(found, now),
        "raised_by": advice(found, provider) or None,
    }


def safety_lines(guarantees: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the classes of a job in words, of JSON objects as `guarantee_dict` makes them; equal ones share a line."""
    by_text: dict[tuple[str, str], list[str]] = {}
    for each in guarantees:
        model = f" {sanitize(each['model'], _MAX_NAME)}" if each["model"] else ""
        by_text.setdefault((each["provider"], each["text"]), []).append(f"{each['operation']}{model}")
    for (provider, text), names in by_text.items():
        more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
        yield f"{sanitize(provider, _MAX_NAME)} {', '.join(names[:_MAX_LISTED])}{more}: {text}"


def fact_dict(fact: Fact, now: float) -> dict[str, Any]:
    """Return a fact as the JSON object that `providers --account --json` prints."""
    texts = {
        name: sanitize(getattr(fact, name), _MAX_TEXT) or None
        for name in ("name", "state", "operation", "model", "subject", "value", "why")
    }
    times = {name: iso_timestamp(getattr(fact, name)) for name in ("first_at", "last_at")}
    return {**texts, "n": fact.n, **times, "valid": fact.is_valid(now)}


def grouped(found: Iterable[Guarantee], text_of: Callable[[Guarantee], str]) -> Iterator[tuple[str, str]]:
    """Yield what is said of a provider's operations: those, with their models, that share a text, and the text."""
    by_text: dict[str, list[str]] = {}
    for each in found:
        name = f"{each.operation} {sanitize(each.model, _MAX_NAME)}" if each.model else each.operation
        by_text.setdefault(text_of(each), []).append(name)
    for text, names in by_text.items():
        more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
        yield f"{', '.join(names[:_MAX_LISTED])}{more}", text


def fact_rows(spec: Spec, facts: Sequence[Fact], now: float) -> Iterator[tuple[str, str, str]]:
    """Yield what is claimed of a list, and what was measured: the fact, the claim and the measurement, in words."""
    listing, by_reference = spec.reconcile.listing, spec.reconcile.by_reference is not None
    if listing is not None and listing.reference:
        yield "reference in the list", "shown", _measured(facts, now, "reference_in_list", "yes, on {n} tasks")
    if by_reference:
        yield "asked by reference", "found", _measured(facts, now, "reference_by_query", "found, {n} times")
        yield "reference never used", "unknown", _measured(facts, now, "unknown_reference", "unknown, {n} times")
    if spec.submit.reference:
        unknown = f"never seen: runner probe {spec.name}"
        yield "reference used twice", "–", _measured(facts, now, "doubles", "{value}", unknown)
    if listing is None:
        return
    yield "own tasks in the list", "all", _measured(facts, now, "own_rows", "all of {n}")
    yield "list lag", f"under {format_duration(spec.doubt)}", _measured(facts, now, "lag", "{value} s, worst of {n}")
    yield "list order", "–", _measured(facts, now, "order", "{value}")
    yield "list length", "–", _measured(facts, now, "capacity", "{value} rows at once")
    yield "list times", "readable", _measured(facts, now, "times", "{value}")
    if claimed_class(spec) == BY_CONTENT:
        yield from _field_rows(spec, facts, now)
    refusals = [fact for fact in facts if fact.name == "refusal"]
    for fact in refusals[:_MAX_LISTED]:
        code, _, meaning = sanitize(fact.subject, 60).partition(" ")
        name = f"refusal {code}"
        found = _measured([fact], now, "refusal", "{value}, looked up {n} times")
        yield (
            name if len(name) <= _MAX_LABEL else f"{name[: _MAX_LABEL - 1]}…",
            "free",
            (f"{meaning}: {found}" if meaning else found),
        )
    yield "somebody else", "–", _measured(facts, now, "stranger", "seen on this account", "not seen today")


def _field_rows(spec: Spec, facts: Sequence[Fact], now: float) -> Iterator[tuple[str, str, str]]:
    """Yield a row for each field by which a task is recognised, and one for all others, over all models."""
    listing = spec.reconcile.listing
    fields = [fact for fact in facts if fact.name == "field"]
    for name in listing.proof if listing is not None else ():
        found = [fact for fact in fields if fact.subject == name]
        good = [fact for fact in found if fact.state != "contradicted"]
        bad = {fact.model: fact for fact in found if fact.state == "contradicted"}
        text = "not known yet"
        if bad:
            models = ", ".join(sanitize(model, _MAX_NAME) for model in list(bad)[:3])
            text = f"NO, not as sent: {models or 'all models'}"
        elif good:
            models = pluralize(len({fact.model for fact in good}), "model")
            text = f"as sent, {models} ({age_text(now - max(fact.last_at for fact in good))})"
        yield sanitize(name, _MAX_LABEL), "as sent", text


def _measured(facts: Iterable[Fact], now: float, name: str, text: str, unknown: str = "not known yet") -> str:
    """Return a measurement in words. A contradiction wins, then what was seen last; what has expired says so."""
    found = [fact for fact in facts if fact.name == name]
    if not found:
        return unknown
    fact = max(found, key=lambda each: (each.state == "contradicted", each.last_at))
    age = age_text(now - fact.last_at)
    if fact.state == "contradicted":
        return f"NO, seen {age}: {sanitize(fact.why, _MAX_TEXT) or 'contradicted'}"
    words = text.format(n=f"{fact.n:,}", value=_value(fact))
    if not fact.is_valid(now):
        return unknown if name == "stranger" else f"{words} ({age}, too old)"
    return f"{words} ({'your word, ' if fact.state == 'declared' else ''}{age})"


def _value(fact: Fact) -> str:
    value = sanitize(fact.value, 40) or "yes"
    try:
        return f"{round(float(value), 1):,g}" if fact.name in {"lag", "capacity"} else value
    except ValueError:
        return value


def _missing_words(found: Guarantee) -> list[str]:
    return [_WORDS.get(name, sanitize(name, _MAX_NAME)) for name in found.missing]
