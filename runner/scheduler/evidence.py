"""Whether a reading of the list proves that a task was never accepted.

The rules are those of docs/reliability.md. An absence counts only in a list that shows our own tasks with their marks,
leaves none of them out, reaches back before the send, and has moved on past the quiet time. What no rule decides is
never guessed: it waits for a witness, or for a person.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from runner.scheduler.list_facts import OVERDUE
from runner.tasks.remote_ids import show_remote_id
from runner.text import pluralize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.scheduler.list_facts import ListFacts
    from runner.scheduler.listing import Reading
    from runner.tasks.list_record import Witness

#: seconds before a doubtful send from which own tasks must be shown: lists may forget older ones
_BEFORE_AGE = 86_400.0
#: seconds by which the time of an own row may differ from its send for the list's times to be believed
_TIME_ERROR = 60.0


@dataclass(frozen=True, slots=True)
class Absence:
    """A judgement of one reading about one task that it does not show.

    `proved`: it was never accepted. `early`: the list is still behind. `unwitnessed`: only a task that is accepted
    later can tell. `contradicted`: this list cannot tell.
    """

    verdict: Literal["proved", "early", "unwitnessed", "contradicted"]
    why: str
    #: own tasks are missing from the list, which contradicts that it shows them all
    is_incomplete: bool = False
    #: proved by a task that was accepted later, and not by the measured lag alone
    by_witness: bool = False


@dataclass(frozen=True, slots=True)
class MissedReading:
    """A complete reading that did not show a task: how many rows it had, and the newest own task among them."""

    rows: int
    anchor: str


class OwnRows:
    """The rows of one reading that belong to tasks of this account whose ids came in their own answers."""

    def __init__(self, reading: Reading, facts: ListFacts, marks: Mapping[str, bool | None], ahead: float) -> None:
        """Index the reading.

        `marks` says of each own row whether it carries what a task is recognised by (None: unknown). `ahead` is by how
        many seconds the provider's clock is ahead of ours.
        """
        self.reading, self.facts, self._marks, self._ahead = reading, facts, marks, ahead
        self._position = {row.remote_id: position for position, row in enumerate(reading.rows)}
        #: with its mark: a row without it is not the task's yet
        self.shown = [
            each for each in facts if each.remote_id in self._position and marks.get(each.remote_id) is not False
        ]
        #: models of which an own row shows something else than what its task is recognised by
        self.unrecognisable = {each.model for each in facts if marks.get(each.remote_id) is False}
        self._shown_ids = {each.remote_id for each in self.shown}
        self.newest_claim = max((each.claimed_at for each in self.shown), default=0.0)
        #: the time back to which the list was read, by our clock
        self._begin = 0.0 if reading.to_end else min(row.created for row in reading.rows) - ahead + _TIME_ERROR

    def expected(self, sent_at: float) -> tuple[list[Witness], list[Witness]]:
        """Return the own tasks that a complete reading shows: those of a day before the send, and all since."""
        before = [each for each in self.facts if each.is_before(sent_at)]
        since = [each for each in self.facts if not each.is_before(sent_at)]
        begin = max(sent_at - _BEFORE_AGE, self._begin)
        return [each for each in before if each.claimed_at > begin or self.is_shown(each)], since

    def is_shown(self, witness: Witness) -> bool:
        """Return True if the reading has its row, with what it is recognised by."""
        return witness.remote_id in self._shown_ids

    def shows_none(self, sent_at: float) -> bool:
        """Return True if it shows none of the own tasks that a complete reading shows."""
        before, since = self.expected(sent_at)
        return bool(before or since) and not any(each.remote_id in self._position for each in (*before, *since))

    def has_neighbour(self, sent_at: float) -> bool:
        """Return True if an own task that was accepted not long before the send, or since, is shown with its mark."""
        begin = sent_at - self.facts.base_quiet_time
        return any(each.answered_at > begin and self._marks.get(each.remote_id) for each in self.shown)

    def is_passed_over(self, witness: Witness) -> bool:
        """Return True if an own task that was sent after its answer is shown."""
        return witness.answered_at < self.newest_claim

    def age(self, witness: Witness) -> float:
        """Return the seconds from its answer to the reading; infinity if it was accepted before this boot."""
        begun = self.reading.begun
        return begun.seconds - witness.answered.seconds if witness.answered.boot == begun.boot else math.inf

    def mark(self, witness: Witness) -> bool | None:
        return self._marks.get(witness.remote_id)

    def newest_first(self) -> bool:
        """Return True if at least two own rows stand in the opposite order of their answers, and none otherwise."""
        pairs = [(first, second) for first, second in pairwise(self.shown) if first.answered_at < second.claimed_at]
        return bool(pairs) and all(
            self._position[first.remote_id] > self._position[second.remote_id] for first, second in pairs
        )

    def times_are_right(self) -> bool:
        """Return True if the own rows show the times of their sends by the provider's clock."""
        errors = [
            abs(self.reading.rows[self._position[each.remote_id]].created - self._ahead - each.answered_at)
            for each in self.shown
            if each.exact
        ]
        return bool(errors) and max(errors) <= _TIME_ERROR

    def reaches_back(self, sent_at: float, missed: MissedReading | None) -> bool:
        """Return True if the reading shows a row from before the send, or was certainly not cut."""
        if any(each.is_before(sent_at) for each in self.shown):
            return True
        if self.times_are_right():
            sent = sent_at + self._ahead
            if any(0.0 < row.created < sent - _TIME_ERROR for row in self.reading.rows):
                return True
        return missed is not None and missed.anchor in self._shown_ids and self.facts.capacity > missed.rows

    def miss(self, sent_at: float) -> MissedReading | None:
        """Return this reading as one that missed the task, or None if it is not complete."""
        before, since = self.expected(sent_at)
        if not self.shown or not all(map(self.is_shown, (*before, *since))):
            return None
        return MissedReading(len(self._position), self.shown[-1].remote_id)


def judge_absence(
    own: OwnRows,
    *,
    sent_at: float,
    quiet_since: float,
    final: bool,
    recognisable: bool = False,
    missed: MissedReading | None = None,
) -> Absence:
    """Judge a reading that does not show a task that was sent at `sent_at`. It began after the task's quiet time.

    `quiet_since` is when that time had passed, on the boot clock. `final`: no later event can come in this run.
    `recognisable`: it is known from elsewhere that the list shows what a task like this is recognised by. `missed` is
    an earlier complete reading that did not show the task either.
    """
    before, since = own.expected(sent_at)
    expected = (*before, *since)
    shown = [each for each in expected if own.is_shown(each)]
    if contradiction := _contradiction(own, expected):
        return contradiction
    if not expected:
        return Absence("unwitnessed", "no task of ours is known that the list must show")
    if not shown or any(not own.is_shown(each) and own.is_passed_over(each) for each in expected):
        return Absence("early", "the list does not show all tasks of ours yet")
    if not recognisable and not any(own.mark(each) for each in shown):
        return Absence("unwitnessed", "it is not known what the list shows of a task like this one")
    if not own.reaches_back(sent_at, missed):
        return Absence("unwitnessed", "the list shows nothing from before its send")
    if witness := next((each for each in since if own.is_shown(each) and _is_after(each, own, quiet_since)), None):
        shown_id = show_remote_id(witness.remote_id)
        after = witness.claimed_seconds - quiet_since
        why = f"absent from a list that shows {shown_id}, accepted {after:.0f} s after the quiet time"
        return Absence("proved", why, by_witness=True)
    lag = own.facts.lag
    if final and len(shown) < len(expected):
        return Absence("early", "the list does not show all tasks of ours yet")
    if final and own.facts.lag_is_short and own.newest_first():
        return Absence(
            "proved", f"absent from a list that shows {len(shown)} of ours and is at most {lag.longest:.1f} s late"
        )
    return Absence("unwitnessed", "no task was accepted since the quiet time")


def _contradiction(own: OwnRows, expected: Sequence[Witness]) -> Absence | None:
    """Return why the list cannot tell: it shows own tasks without their marks, or leaves some out."""
    quiet = own.facts.base_quiet_time
    unmarked = sum(own.mark(each) is False and own.age(each) > quiet for each in expected)
    if unmarked:
        why = f"the list shows {pluralize(unmarked, 'task')} of ours without what they are recognised by"
        return Absence("contradicted", why)
    left_out = [each for each in expected if not own.is_shown(each)]
    passed_over = sum(own.is_passed_over(each) and own.age(each) > quiet for each in left_out)
    if passed_over:
        return Absence(
            "contradicted", f"the list leaves out {pluralize(passed_over, 'task')} of ours", is_incomplete=True
        )
    overdue = sum(own.age(each) > OVERDUE * quiet for each in left_out)
    if overdue:
        why = f"{pluralize(overdue, 'task')} of ours did not appear in the list"
        return Absence("contradicted", why, is_incomplete=True)
    return None


def _is_after(witness: Witness, own: OwnRows, quiet_since: float) -> bool:
    return witness.answered.boot == own.reading.begun.boot and witness.claimed_seconds >= quiet_since
