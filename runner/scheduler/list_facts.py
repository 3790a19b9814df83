"""What readings of one list have shown of our own tasks: whose ids are known, how late they appear, in which order.

A task whose id came in the answer to its own submit is a witness: a list that is whole must show it. Nothing here
believes what a spec says of a list. docs/reliability.md explains the rules that use these facts.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from runner.scheduler.learned_facts import LearnedFacts
from runner.tasks.list_record import LONGEST_SUBMIT, Lag, ListRecord, Witness
from runner.tasks.models import Moment

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from runner.providers.responses import ListedTask
    from runner.scheduler.clock import Clock
    from runner.scheduler.listing import Reading
    from runner.tasks.models import Task

#: witnesses that are kept in memory, the latest
MAX_WITNESSES = 4096
#: share of the quiet time within which own tasks must appear, so that the lag may grow fourfold unnoticed
_LAG_SHARE = 0.25
#: a lag up to this many seconds is short, however short the quiet time is
_SHORT_LAG = 1.0
#: quiet times after which an own task that the list does not show is missing, and not late
OVERDUE = 3
#: seconds by which the time of an own row may differ from its send
_TIME_ERROR = 60.0
#: longest quiet time that a slow list can ask for, seconds; a list that is slower proves nothing
MAX_QUIET = 3600.0


class ListFacts:
    """Facts about the list that holds the tasks of `operation`, measured on own tasks.

    `quiet_time` is that of the provider's spec or of the manifest, in seconds. `by_reference`: its rows show our
    references, and a row without its own is not the task's yet. `proof` and `on_contradiction` are those of
    `LearnedFacts`.
    """

    def __init__(
        self,
        operation: str,
        quiet_time: float,
        *,
        by_reference: bool = False,
        proof: Collection[str] = (),
        on_contradiction: Callable[[], None] = lambda: None,
    ) -> None:
        self.operation, self._by_reference = operation, by_reference
        #: what is to be written down for the account's guarantee class
        self.learned = LearnedFacts(by_reference=by_reference, proof=proof, on_contradiction=on_contradiction)
        self.base_quiet_time = quiet_time
        self._limit = max(_LAG_SHARE * quiet_time, _SHORT_LAG)
        self._witnesses: OrderedDict[str, Witness] = OrderedDict()
        #: witnesses of an earlier boot, with the times that were recorded then
        self._recorded: dict[str, Witness] = {}
        #: witnesses of this process that no reading has shown yet, and their age at the last one that did not
        self._awaited: OrderedDict[str, float] = OrderedDict()
        #: when the first reading of this process began, seconds on the boot clock
        self._first_read: float | None = None
        self.lag = Lag()
        #: most rows that a reading has shown at once
        self.capacity = 0
        #: when a task was last seen that no job of this home explains, seconds since the epoch; 0.0: never
        self.stranger_at = 0.0
        #: whether the list gives back a request field unchanged, by model and field
        self.echo: dict[tuple[str, str], bool] = {}

    def __len__(self) -> int:
        return len(self._witnesses)

    def __contains__(self, remote_id: object) -> bool:
        return remote_id in self._witnesses

    def __iter__(self) -> Iterator[Witness]:
        return iter(self._witnesses.values())

    @property
    def awaited(self) -> int:
        """Return the number of tasks of this run that no reading has shown yet."""
        return len(self._awaited)

    @property
    def quiet_time(self) -> float:
        """Return the quiet time, four times the lag where the list was seen to be slow."""
        is_slow = self.lag.longest > self._limit
        return (
            max(self.base_quiet_time, min(self.lag.longest / _LAG_SHARE, MAX_QUIET))
            if is_slow
            else self.base_quiet_time
        )

    @property
    def lag_bound(self) -> float:
        """Return the seconds after which a list of the measured lag has shown a task, though it grew fourfold."""
        if not self.lag_is_short:
            return self.quiet_time
        return min(self.quiet_time, max(self.lag.longest, _SHORT_LAG) / _LAG_SHARE)

    @property
    def lag_is_short(self) -> bool:
        """Return True if the lag is known, and could grow fourfold within the quiet time."""
        return self.lag.known and self.lag.longest <= max(_LAG_SHARE * self.quiet_time, _SHORT_LAG)

    def add(self, witness: Witness) -> None:
        """Add a task that was accepted just now."""
        self._witnesses[witness.remote_id] = witness
        self._awaited[witness.remote_id] = 0.0
        for each in (self._witnesses, self._awaited):
            if len(each) > MAX_WITNESSES:
                each.popitem(last=False)

    def load(self, witnesses: Iterable[Witness]) -> None:
        """Add tasks that were accepted in earlier runs, of this job or of others."""
        known = {each.remote_id: each for each in witnesses} | self._witnesses
        in_order = sorted(known.values(), key=lambda each: each.answered_at)
        self._witnesses = OrderedDict((each.remote_id, each) for each in in_order[-MAX_WITNESSES:])

    def learn_echo(self, model: str, same: Mapping[str, bool], now: float) -> None:
        """Learn which request fields came back unchanged; a field that once did not stays so."""
        self.learned.learn_echo(model, same, now)
        for name, equal in same.items():
            self.echo[model, name] = equal and self.echo.get((model, name), True)

    def echo_of(self, model: str) -> dict[str, bool]:
        """Return which request fields of a model come back unchanged (False: changed), as far as it is known."""
        return {name: equal for (each, name), equal in self.echo.items() if each == model}

    def restore(self, record: ListRecord, clock: Clock) -> None:
        """Take over what the account's jobs have learned before. Their wall clocks may have been others."""
        self._recorded.update((each.remote_id, each) for each in record.witnesses if each.answered.boot != clock.boot)
        self.load(_by_clock(each, clock) for each in record.witnesses)
        self.lag, self.capacity, self.stranger_at = record.lag, record.capacity, record.stranger_at
        self.echo.update(record.echo)

    def record(self) -> ListRecord:
        """Return what is known now, for the account's other jobs."""
        own = tuple(each for each in self if not each.adopted)
        return ListRecord(own, replace(self.lag), self.capacity, dict(self.echo), self.stranger_at)

    def time_shift(self, reading: Reading) -> float | None:
        """Return by how many seconds the list's times are ahead of the provider's clock; None: they mean nothing.

        An own row must show a time between its send and its answer. Without own rows that have times, times are
        believed. Of an earlier boot only what the account has on record counts, by the wall clock of that time: if that
        disagrees, nobody knows who is wrong.
        """
        errors: dict[bool, list[float]] = {True: [], False: []}
        for row in reading.rows:
            witness = self._witnesses.get(row.remote_id)
            is_this_boot = witness is not None and witness.answered.boot == reading.begun.boot
            known = witness if is_this_boot else self._recorded.get(row.remote_id)
            if known is not None and row.created:
                created = row.created - (reading.ahead if is_this_boot else 0.0)
                early, late = created - known.claimed_at, created - known.answered_at
                error = 0.0 if early >= -_TIME_ERROR and late <= _TIME_ERROR else min(early, late, key=abs)
                errors[is_this_boot].append(error)
        found = errors[True] or errors[False]
        if not any(found):
            return 0.0
        is_shift = bool(errors[True]) and max(found) - min(found) <= 2 * _TIME_ERROR
        return median(found) if is_shift else None

    def shows_foreign_references(self, reading: Reading) -> bool:
        """Return True if a row of an own task carries another reference than its own."""
        return any(row.reference and self._is_unmarked(row) for row in reading.rows)

    def _is_unmarked(self, row: ListedTask) -> bool:
        witness = self._witnesses.get(row.remote_id) if self._by_reference else None
        return witness is not None and row.reference != witness.ref

    def saw_late(self, seconds: float) -> None:
        """Learn that a task of ours was missing from a reading so long after its acceptance, and shown later.

        After three quiet times the reading had left it out; that is no lag.
        """
        if self._limit < seconds <= OVERDUE * self.base_quiet_time:
            self.lag.longest = max(self.lag.longest, seconds)

    def observe(self, reading: Reading) -> None:
        """Learn from a reading: lag, capacity, and what it shows of own tasks."""
        self.learned.observe(reading, self._witnesses, self.base_quiet_time)
        shown = {row.remote_id for row in reading.rows if not self._is_unmarked(row)}
        self.capacity = max(self.capacity, len(reading.rows))
        newest = max((each.claimed_at for each in self if each.remote_id in shown), default=0.0)
        for remote_id in list(self._awaited):
            witness = self._witnesses.get(remote_id)
            if witness is None:
                del self._awaited[remote_id]
                continue
            age = max(0.0, reading.begun.seconds - witness.answered.seconds)
            if remote_id in shown:
                missed = self._awaited.pop(remote_id)
                measured = age - missed <= self._limit  # else they lie too far apart
                # a list that was seen to be slow may have been so until now, if nobody looked meanwhile
                unwatched = missed > self._limit and age > missed / _LAG_SHARE
                self.lag.samples += measured
                self.lag.longest = max(self.lag.longest, age if measured or unwatched else missed)
            elif age > OVERDUE * self.base_quiet_time or (witness.answered_at < newest and age > self.base_quiet_time):
                del self._awaited[remote_id]  # it is left out, not late
            elif age > 0:
                self._awaited[remote_id] = age
                if age > self._limit:
                    self.lag.longest = max(self.lag.longest, age)
        self._learn_from_earlier_runs(reading, shown, newest)

    def _learn_from_earlier_runs(self, reading: Reading, shown: Collection[str], newest: float) -> None:
        """Learn how late the list is from tasks that earlier runs were given ids for.

        Only those count that were sent before no own task which is shown: others a short reading does not hold.
        What was accepted in another boot is at least as old as this run's first reading.
        """
        begun = reading.begun
        self._first_read = begun.seconds if self._first_read is None else self._first_read
        for each in self:
            is_earlier = each.remote_id not in self._awaited and not each.adopted
            if is_earlier and each.claimed_at >= newest and each.remote_id not in shown:
                since = each.answered.seconds if each.answered.boot == begun.boot else self._first_read
                self.saw_late(begun.seconds - since)


def witness_from(task: Task, clock: Clock) -> Witness:
    """Return an accepted task of an earlier run as a witness, with the widest span in which it was accepted."""
    claimed, sent = claim_time(task, clock), task.sent or Moment("", 0.0)
    answered = clock.at(sent) if sent.boot == clock.boot else min(claimed + LONGEST_SUBMIT, clock.boot_time())
    return Witness(
        task.remote_id or "",
        task.ref,
        task.model,
        claimed,
        max(claimed, answered),
        sent,
        task.key,
        adopted=task.adopted,
    )


def claim_time(task: Task, clock: Clock) -> float:
    """Return when a task was claimed for its submit, by the clock of this run.

    The wall clock of the run that claimed it may have been another. On the boot clock only the end of its submit is
    known, so where the two disagree it is the earliest that fits that.
    """
    claimed = task.submitted_at or 0.0
    if task.sent is None or task.sent.boot != clock.boot:
        return min(claimed, clock.boot_time())
    ended = clock.at(task.sent)
    return claimed if ended - LONGEST_SUBMIT <= claimed <= ended else ended - LONGEST_SUBMIT


def _by_clock(witness: Witness, clock: Clock) -> Witness:
    """Return a witness of this boot with the times that this run's clock showed."""
    is_this_boot = witness.answered.boot == clock.boot
    answered_at = clock.at(witness.answered) if is_this_boot else min(witness.answered_at, clock.boot_time())
    ahead = answered_at - witness.answered_at
    return replace(witness, claimed_at=witness.claimed_at + ahead, answered_at=witness.answered_at + ahead)
