"""Guarantee classes: what is promised for a submit whose answer is lost, by what was measured on an account.

A spec claims: that is an upper bound of what is believed, and never makes a class. docs/reliability.md explains the
classes to users.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from runner.providers.images import has_placeholder
from runner.text import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runner.providers.spec import Spec
    from runner.tasks.fact import Fact

#: the facts that classes rest on, and what each says; the subject is the field or the code that a fact is about
FACTS: Mapping[str, str] = {
    "reference_in_list": "own rows of the list carry our reference",
    "reference_by_query": "asking by our reference gives our task",
    "unknown_reference": "a reference that was never accepted is unknown",
    "doubles": "a second task under one reference is `refused`, `accepted`, or answered with the `first` one",
    "field": "a request field (the subject) comes back `verbatim`, `mapped`, `changed` or `hidden`",
    "own_rows": "the list shows our tasks and leaves none out",
    "capacity": "most rows that the list has shown at once",
    "order": "order of the list: `newest first`, `oldest first` or `none`",
    "lag": "longest time until the list shows a task, in seconds",
    "times": "times of own rows: `right` or `unreadable`",
    "stranger": "somebody else uses the account",
    "refusal": "a refusal (the subject is its code and meaning) leaves no task: `free`",
}
#: the classes, and the words for them
ONCE, FENCED, BY_REFERENCE, BY_CONTENT, HELD = 4, 3, 2, 1, 0
CLASS_NAMES: Mapping[int, str] = {
    ONCE: "once",
    FENCED: "fenced",
    BY_REFERENCE: "by reference",
    BY_CONTENT: "by content",
    HELD: "held",
}

#: what a class rests on. `claimed`: the spec itself says that nothing can be looked up; `unknown`: too little is known
Basis = Literal["measured", "declared", "contradicted", "unknown", "claimed"]

#: own tasks on which a lag must have been measured before it counts
_LAG_SAMPLES = 3
#: a list that is later than this proves nothing, seconds
_LONGEST_LAG = 900.0
#: name and subject of a fact
_Key = tuple[str, str]
#: the list shows our tasks, whole and in time
_LIST: tuple[_Key, ...] = (("own_rows", ""), ("capacity", ""), ("lag", ""))
_TIMES: _Key = ("times", "")
_IN_LIST: _Key = ("reference_in_list", "")
_BY_QUERY: tuple[_Key, ...] = (("reference_by_query", ""), ("unknown_reference", ""))
#: facts whose number is one of own tasks
_COUNTS_TASKS = {"reference_in_list", "reference_by_query", "own_rows"}


@dataclass(frozen=True, slots=True)
class Guarantee:
    """The class of one operation of an account; of one model where it rests on what the list shows of a request."""

    operation: str
    #: empty: all models
    model: str
    #: 4 once, 3 fenced, 2 by reference, 1 by content, 0 held
    level: int
    #: the class that the spec claims, if the provider keeps its word
    claimed: int
    basis: Basis
    #: own tasks that it was measured on
    tasks: int = 0
    #: when the oldest of its facts was last seen, seconds since the epoch; if it is unknown, when one that has expired
    #: was seen last. None: there is none
    measured_at: float | None = None
    #: names of the facts that are not known for the class that is claimed, or no longer
    missing: tuple[str, ...] = ()
    #: why it is contradicted, for people
    why: str = ""

    @property
    def name(self) -> str:
        """Return the word of its class."""
        return CLASS_NAMES[self.level]


class _Known:
    """Valid facts of one operation and model, by name and subject. A contradiction wins, then what was seen last."""

    def __init__(self, facts: Iterable[Fact], operation: str, model: str, now: float) -> None:
        self._facts: dict[_Key, Fact] = {}
        for fact in facts:
            if fact.operation in {"", operation} and fact.model in {"", model} and fact.is_valid(now):
                known = self._facts.get((fact.name, fact.subject))
                if known is None or _rank(fact) > _rank(known):
                    self._facts[fact.name, fact.subject] = fact

    def get(self, key: _Key) -> Fact | None:
        """Return a fact that serves its purpose, or None."""
        fact = self._facts.get(key)
        return fact if fact is not None and fact.state != "contradicted" and _serves(fact) else None

    def objection(self, key: _Key) -> Fact | None:
        """Return a fact that is known to be against it: contradicted, or measured and found unfit."""
        fact = self._facts.get(key)
        return fact if fact is not None and (fact.state == "contradicted" or _is_unfit(fact)) else None


def _rank(fact: Fact) -> tuple[bool, bool, float]:
    return fact.state == "contradicted", _is_unfit(fact), fact.last_at


def _serves(fact: Fact) -> bool:
    if fact.name == "lag":
        return not _is_unfit(fact) and (fact.n >= _LAG_SAMPLES or fact.state == "declared")
    return not _is_unfit(fact)


def _is_unfit(fact: Fact) -> bool:
    """Return True if a value was measured that serves no class."""
    match fact.name:
        case "lag":
            return not 0.0 <= _number(fact.value) <= _LONGEST_LAG
        case "capacity":
            return not _number(fact.value) >= 1
        case "field":
            return fact.value not in {"verbatim", "mapped"}
        case "times":
            return fact.value != "right"
        case _:
            return False


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return -1.0


def claimed_class(spec: Spec) -> int:
    """Return the class that a spec claims: 2 with references to look up, 1 with a list of requests, else 0."""
    ways = spec.reconcile
    if spec.submit.reference and (ways.by_reference or (ways.listing and ways.listing.reference)):
        return BY_REFERENCE
    return BY_CONTENT if ways.listing is not None and ways.listing.proof else HELD


def guarantee(spec: Spec, operation: str, model: str, facts: Iterable[Fact], now: float) -> Guarantee:
    """Return the class that the facts about an operation's list give at `now`, seconds since the epoch.

    At a provider with references the class is the same for all models.
    """
    claimed = claimed_class(spec)
    model = model if claimed == BY_CONTENT else ""
    if claimed == HELD:
        return Guarantee(operation, model, HELD, HELD, "claimed")
    facts = tuple(facts)
    known, keys = _Known(facts, operation, model, now), _needed(spec, claimed)
    identity, found = _identity(known, spec, claimed), [known.get(key) for key in keys]
    missing = tuple(" ".join(key).strip() for key, fact in zip(keys, found, strict=True) if fact is None)
    doubles = known.get(("doubles", "")) if claimed == BY_REFERENCE else None
    if doubles is not None and doubles.value == "first":
        return _resting_on([doubles], Guarantee(operation, model, ONCE, claimed, "measured"))
    if doubles is not None and doubles.value == "refused" and identity:
        return _resting_on([doubles, *identity], Guarantee(operation, model, FENCED, claimed, "measured"))
    if objections := [fact for key in keys if (fact := known.objection(key)) is not None]:
        last = max(objections, key=lambda fact: fact.last_at)
        return Guarantee(operation, model, HELD, claimed, "contradicted", last.n, last.last_at, missing, _why(last))
    lists = [known.get(key) for key in keys if key in {*_LIST, _TIMES}]
    if identity and all(lists):
        used = [*identity, *(fact for fact in lists if fact is not None)]
        return _resting_on(used, Guarantee(operation, model, claimed, claimed, "measured"))
    expired = [fact.last_at for fact in facts if (fact.name, fact.subject) in keys and not fact.is_valid(now)]
    tasks = max((fact.n for fact in found if fact is not None and fact.name in _COUNTS_TASKS), default=0)
    return Guarantee(operation, model, HELD, claimed, "unknown", tasks, max(expired, default=None), missing)


def hidden_fields(spec: Spec, body: Mapping[str, Any], trusted: Mapping[str, bool]) -> list[str]:
    """Return the fields of a request that the list does not show, or shows changed.

    `trusted` are fields that are known to come back unchanged (False: changed).
    """
    echo = spec.reconcile.listing.echo if spec.reconcile.listing else {}
    return [name for name in body if not trusted.get(name, name in echo and not has_placeholder(body[name]))]


def advice(found: Guarantee, provider: str) -> str:
    """Return what would raise a class, or "" if nothing does."""
    if found.basis == "claimed":
        return "nothing does: it keeps no record of tasks that can be read"
    if found.basis == "contradicted":
        return f"runner probe {provider}, once the provider has mended it"
    if found.basis == "unknown":
        return "the first tasks of the next run measure it, free of charge"
    if found.level == BY_REFERENCE:
        return f"runner probe {provider} shows whether a reference that is used twice is refused (class 3)"
    return ""


def _needed(spec: Spec, claimed: int) -> list[_Key]:
    """Return the facts that the claimed class needs. A list with references is what decides, where there is one."""
    listing = spec.reconcile.listing
    if listing is None:
        return list(_BY_QUERY)
    if claimed == BY_CONTENT:
        return [*(("field", field) for field in listing.proof), *_LIST, _TIMES]
    return [*([_IN_LIST] if listing.reference else _BY_QUERY), *_LIST]


def _identity(known: _Known, spec: Spec, claimed: int) -> list[Fact]:
    """Return the facts by which one of our tasks is recognised, or none if one of them is missing."""
    listing = spec.reconcile.listing
    if claimed == BY_CONTENT:
        ways: list[list[_Key]] = [[("field", field) for field in listing.proof]] if listing else []
    else:
        ways = [[_IN_LIST], [*_BY_QUERY]]
    for keys in ways:
        facts = [fact for key in keys if (fact := known.get(key)) is not None]
        if len(facts) == len(keys):
            return facts
    return []


def _resting_on(facts: Sequence[Fact], found: Guarantee) -> Guarantee:
    """Return the class with its age: that of the oldest fact, and with a person's word where one of them is that."""
    declared = any(fact.state == "declared" for fact in facts)
    tasks = max((fact.n for fact in facts if fact.name in _COUNTS_TASKS), default=0)
    return replace(
        found,
        basis="declared" if declared else "measured",
        tasks=tasks,
        measured_at=min(fact.last_at for fact in facts),
    )


def _why(fact: Fact) -> str:
    """Return why a fact speaks against a class."""
    match fact.name:
        case _ if fact.state == "contradicted" and fact.why:
            return fact.why
        case "lag":
            return f"the list is {format_duration(max(0.0, _number(fact.value)))} late"
        case "field":
            return f"the list does not show {fact.subject} as it was sent"
        case "times":
            return "the list's times cannot be read"
        case _:
            return f"{FACTS.get(fact.name, fact.name)}: that was contradicted"
