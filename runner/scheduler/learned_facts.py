"""Facts that a run learns for nothing from readings of one list: what they show of own tasks, and what contradicts it.

They say which guarantee class an account has (`providers.guarantee`), and prove no absence. That a list does not show
our references is believed until a probe clears it. They are kept in memory until the run writes them down.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from runner.tasks.fact import Fact, merge_facts
from runner.text import pluralize

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from runner.scheduler.listing import Reading
    from runner.tasks.list_record import Witness

#: seconds by which the time of an own row may differ from its send
_TIME_ERROR = 60.0
#: remote ids that a reason names
_NAMED = 3
#: own tasks that are counted in one run, for each fact
_MAX_COUNTED = 4096


class LearnedFacts:
    """Facts about one list that are not written down yet.

    `by_reference`: its rows show our references. `proof` are the request fields by which a task is recognised in a list
    without. `on_contradiction` is called when there is something new against the list.
    """

    def __init__(
        self,
        *,
        by_reference: bool = False,
        proof: Collection[str] = (),
        on_contradiction: Callable[[], None] = lambda: None,
    ) -> None:
        self._by_reference, self._proof, self._on_contradiction = by_reference, frozenset(proof), on_contradiction
        self._new: dict[tuple[str, str, str, str], Fact] = {}
        #: contradictions that were recorded before, or by this run
        self._contradicted: set[tuple[str, str, str, str]] = set()
        #: own tasks that were counted, by fact
        self._counted: defaultdict[str, set[str]] = defaultdict(set)
        #: contradictions that the user has not been told
        self.untold: list[Fact] = []
        #: it is known what own rows look like, so that no reading need be made for it
        self.known = False

    def restore(self, facts: Iterable[Fact]) -> None:
        """Take over what was recorded before and still counts."""
        for fact in facts:
            if fact.state == "contradicted":
                self._contradicted.add(fact.key)
            self.known |= fact.name == ("reference_in_list" if self._by_reference else "own_rows")

    def is_contradicted(self, name: str) -> bool:
        """Return True if something speaks against a fact about the whole list, seen now or by an earlier run."""
        return (name, "", "", "") in self._contradicted

    def take(self) -> tuple[Fact, ...]:
        """Return what is to be written down, and forget it."""
        facts = tuple(self._new.values())
        self._new.clear()
        return facts

    def put_back(self, facts: Iterable[Fact]) -> None:
        """Keep facts that could not be written down."""
        for fact in facts:
            self._add(fact)

    def observe(self, reading: Reading, witnesses: Mapping[str, Witness], quiet: float) -> None:
        """Learn from the own rows of a reading. After `quiet` seconds a row must have its reference."""
        now, ahead = reading.at, reading.ahead
        own = [(row, witnesses[row.remote_id]) for row in reading.rows if row.remote_id in witnesses]
        own = [(row, each) for row, each in own if not each.adopted]  # a person may have given an id that is not ours
        if not own:
            return
        self._count("own_rows", (each.remote_id for _, each in own), now)
        if self._by_reference:
            self._count("reference_in_list", (each.remote_id for row, each in own if row.reference == each.ref), now)
            other = [each.remote_id for row, each in own if row.reference and row.reference != each.ref]
            without = [each.remote_id for row, each in own if not row.reference and _age(each, reading) > quiet]
            if other:
                self.contradict("reference_in_list", f"the list shows another reference on {_tasks(other)}", now)
            elif without:
                self.contradict("reference_in_list", f"the list does not show our reference on {_tasks(without)}", now)
        if order := _order([each for _, each in own]):
            self._add(Fact("order", "measured", value=order, first_at=now, last_at=now))
        exact = [(row.created - ahead, each) for row, each in own if each.exact]
        if any(created + ahead > 0 for created, _ in exact):
            right = [each.remote_id for created, each in exact if abs(created - each.answered_at) <= _TIME_ERROR]
            self._count("times", right, now, value="right")
        elif exact:
            self._add(Fact("times", "measured", value="unreadable", first_at=now, last_at=now))

    def learn_echo(self, model: str, same: Mapping[str, bool], now: float) -> None:
        """Learn whether a list without references shows the fields by which a task is recognised."""
        for name in self._proof:
            if not same.get(name, True):
                why = f"the list does not show {name} of {model} as it was sent"
                self.contradict("field", why, now, model=model, subject=name)

    def found_by_reference(self, operation: str, now: float) -> None:
        """Learn that a question by our reference was answered with a task that names it."""
        self._add(Fact("reference_by_query", "measured", operation, first_at=now, last_at=now))

    def reference_unknown(self, operation: str, reference: str, now: float) -> None:
        """Learn that a question by a reference that was never accepted was answered with no task."""
        self._count("unknown_reference", [reference], now, operation=operation)

    def contradict(self, name: str, why: str, now: float, *, model: str = "", subject: str = "") -> None:
        """Learn what speaks against the list; the user is told once."""
        fact = Fact(name, "contradicted", "", model, subject, first_at=now, last_at=now, why=why)
        if fact.key in self._contradicted:
            return
        self._contradicted.add(fact.key)
        self._add(fact)
        self.untold.append(fact)
        self._on_contradiction()

    def _count(self, name: str, ids: Iterable[str], now: float, *, value: str = "", operation: str = "") -> None:
        """Count own tasks that are seen so for the first time in this run."""
        counted = self._counted[name]
        fresh = set(ids) - counted
        if fresh and len(counted) < _MAX_COUNTED:
            counted |= fresh
            self._add(Fact(name, "measured", operation, value=value, n=len(fresh), first_at=now, last_at=now))
            self.known |= name == ("reference_in_list" if self._by_reference else "own_rows")

    def _add(self, fact: Fact) -> None:
        known = self._new.get(fact.key)
        self._new[fact.key] = fact if known is None else merge_facts(known, fact)


def _order(shown: list[Witness]) -> str:
    """Return the order in which a reading shows own tasks, or "" if there are not two that tell."""
    ups = [
        first.answered_at < second.answered_at
        for first, second in pairwise(shown)
        if first.answered_at < second.claimed_at or second.answered_at < first.claimed_at
    ]
    if not ups:
        return ""
    return "oldest first" if all(ups) else "none" if any(ups) else "newest first"


def _age(witness: Witness, reading: Reading) -> float:
    """Return the seconds from the answer of an own task to the reading; of an earlier boot, infinity."""
    same = witness.answered.boot == reading.begun.boot
    return reading.begun.seconds - witness.answered.seconds if same else float("inf")


def _tasks(ids: list[str]) -> str:
    return f"{pluralize(len(ids), 'task')} of ours ({', '.join(ids[:_NAMED])})"
