"""The words of a probe: its plan, its table of facts, and the text that may be published."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from runner import __version__
from runner.app.published_facts import published_host
from runner.providers import spec as specs
from runner.text import pluralize, sanitize, shell_join

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.app.probe_account import ProbeReport
    from runner.app.probe_plan import ProbePlan
    from runner.providers.guarantee import Guarantee
    from runner.settings import Settings
    from runner.tasks.fact import Fact

#: what each fact is called, in the order of the table
LABELS = {
    "unknown_reference": "reference never used",
    "unknown_id": "id never given",
    "reference_by_query": "asked by reference",
    "reference_in_list": "reference in the list",
    "doubles": "double reference",
    "refusal": "refusal",
    "own_rows": "own task in the list",
    "lag": "list lag",
    "order": "list order",
    "capacity": "rows at once",
    "pages": "pages of the list",
    "times": "times in the list",
    "state_freshness": "end shown in the list",
    "delivery_after_cut": "found after a cut",
    "price": "price",
    "failed_free": "failed task",
    "field": "request field",
}
#: facts that are not published: they tell what somebody paid
_PRIVATE = {"price"}
#: what each step does, for the plan
_STEPS = {
    "refusal": "a request with an invalid parameter ({invalid}); free, if its refusal is one",
    "task": "one task of {model}; list, references, fields and times are measured on it",
    "double": "the same reference again; free, if the provider refuses it",
    "cut": "a request whose connection is cut after its last byte",
    "picture": "a task with a picture ({picture})",
    "other picture": "the same with another picture; how the list shows pictures",
}
#: characters of a value, and of a reason, in the table
_MAX_VALUE, _MAX_WHY = 60, 160


def plan_lines(plan: ProbePlan) -> Iterator[str]:
    """Yield what a probe will do, and what it costs at most."""
    spec = plan.spec
    yield f"{spec.name}: an unknown reference and id, and three pages of the list; free"
    if not spec.can_reconcile:
        yield "It offers neither a list nor a query by reference, so a purchase could measure nothing: a lost answer is"
        yield "held for you, whatever it costs. Nothing is bought."
        return
    invalid = " = ".join(map(str, plan.invalid)) if plan.invalid else ""
    for number, step in enumerate(plan.steps, start=1):
        yield f"  {number}. {_STEPS[step].format(invalid=invalid, model=plan.model, picture=plan.picture)}"
    if not plan.steps:
        return
    cost = plan.highest_cost
    price = "at a price that nobody knows" if cost is None else f"for {cost:g} {spec.unit} at most"
    yield f"It buys {pluralize(plan.most, 'task')} at most, {price}."


def fact_lines(report: ProbeReport) -> Iterator[str]:
    """Yield the table of facts, then what could not be measured, what was bought, and what is left to decide."""
    facts = [fact for name in LABELS for fact in report.facts if fact.name == name and name != "field"]
    echo = [fact for fact in report.facts if fact.name == "field"]
    width = max((len(_label(fact)) for fact in facts), default=0)
    for fact in facts:
        yield f"  {_label(fact):<{width}}  {_value(fact)}{_why(fact)}"
    for how in ("verbatim", "changed", "hidden"):
        fields = ", ".join(fact.subject for fact in echo if fact.value == how)
        if fields:
            yield f"  {f'fields {how}':<{width}}  {sanitize(fields, _MAX_WHY)}"
    if report.guarantee is not None:
        yield f"  {'class':<{width}}  {_class_words(report.guarantee)}"
    for note in report.notes:
        yield f"  ? {sanitize(note, _MAX_WHY)}"
    for task in report.bought:
        yield f"  bought: {task.remote_id or 'unknown id'}, {task.state} ({task.key[:8]})"
    for remote_id in report.surplus:
        yield f"  bought by a request that was refused: {sanitize(remote_id)}"
    for task in report.open:
        yield f"  {task.state}: {shell_join('runner', 'resolve', str(report.directory), task.key[:8])} decides"


def _class_words(found: Guarantee) -> str:
    """Return the class of lost answers, and what it still lacks."""
    words = f"{found.level} {found.name}"
    match found.basis:
        case "claimed":
            return f"{words}: nothing can be looked up"
        case "contradicted":
            return f"{words}: {sanitize(found.why, _MAX_WHY)}"
        case "unknown":
            return f"not known yet: the next runs measure {', '.join(found.missing)}"
        case _:
            return f"{words}, {found.basis}"


def report_to_dict(report: ProbeReport) -> dict[str, Any]:
    """Return the object that `runner probe --json` prints."""
    return {
        "provider": report.plan.spec.name,
        "operation": report.plan.operation,
        "model": report.plan.model,
        "exit_code": int(report.exit),
        "reasons": list(report.reasons),
        "directory": str(report.directory),
        "class": None if report.guarantee is None else report.guarantee.level,
        "class_basis": None if report.guarantee is None else report.guarantee.basis,
        "facts": [_fact_to_dict(fact) for fact in report.facts],
        "notes": list(report.notes),
        "bought": [{"key": task.key, "remote_id": task.remote_id, "state": str(task.state)} for task in report.bought],
        "surplus": list(report.surplus),
        "open": [task.key for task in report.open],
    }


def publication(report: ProbeReport, settings: Settings) -> str:
    """Return a text for others: facts with their counts, and nothing that names an account, a task or a price."""
    spec, day = report.plan.spec, datetime.fromtimestamp(report.at, UTC).date()
    lines = [
        f"# measured by `runner probe {spec.name}`, to be contributed as it is",
        f"spec: {spec.name}",
        f"spec_sha256: {_spec_hash(spec.name, settings)}",
        f"runner: {__version__}",
        f"host: {published_host(spec.name, settings)}",
        f"operation: {report.plan.operation}",
        f"model: {report.plan.model}",
        f"date: {day}",
        "facts:",
    ]
    for name in LABELS:
        for fact in report.facts:
            if fact.name == name and name not in _PRIVATE:
                subject = f" {sanitize(fact.subject, _MAX_VALUE)}" if fact.subject else ""
                lines.append(f"  - {name}{subject}: {sanitize(fact.value, _MAX_VALUE)} ({fact.state}, n={fact.n})")
    return "\n".join(lines) + "\n"


def _spec_hash(name: str, settings: Settings) -> str:
    path: Path = specs.spec_paths(settings.providers)[name]
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _fact_to_dict(fact: Fact) -> dict[str, Any]:
    return {
        "name": fact.name,
        "subject": fact.subject or None,
        "state": fact.state,
        "value": fact.value,
        "n": fact.n,
        "why": fact.why or None,
    }


def _label(fact: Fact) -> str:
    return f"{LABELS[fact.name]} {sanitize(fact.subject, _MAX_VALUE)}".rstrip()


def _value(fact: Fact) -> str:
    value = sanitize(fact.value, _MAX_VALUE)
    return value if fact.state == "measured" else f"NOT AS CLAIMED: {value}"


def _why(fact: Fact) -> str:
    seen = f"{fact.n} seen" if fact.n > 1 else ""
    words = ", ".join(filter(None, (sanitize(fact.why, _MAX_WHY), seen)))
    return f"  ({words})" if words else ""
