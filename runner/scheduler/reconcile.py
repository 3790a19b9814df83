"""The reconcile stage: find out what became of submits without an answer, before anything is paid again.

A task that is found is adopted at once. Absence is believed only after the quiet time, after two clean readings, with
no duplicate of the request on the wire, and where the list itself proves it (module `evidence`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, assert_never

import anyio
import orjson

from runner.providers.guarantee import hidden_fields
from runner.providers.responses import (
    ListedTask,
    classify_response,
    compare_echo,
    is_success,
    proof_of_row,
    read_reference,
)
from runner.scheduler.evidence import OwnRows, judge_absence
from runner.scheduler.list_facts import MAX_WITNESSES, claim_time, witness_from
from runner.scheduler.listing import CLOCK_TOLERANCE, Reading, read_list, unclaimed_rows
from runner.scheduler.row_match import Match, match
from runner.scheduler.suspects import SuspectView, judge_suspect, postpone_suspects, proof_after
from runner.tasks.events import Found, Missing, RetryableFailure
from runner.tasks.list_record import LONGEST_SUBMIT, EarlierRows, Witness
from runner.tasks.models import Moment, State, TaskError
from runner.tasks.remote_ids import show_remote_id
from runner.text import pluralize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.providers.requests import Outcome
    from runner.scheduler.evidence import MissedReading
    from runner.scheduler.session import ProviderSession
    from runner.scheduler.settlement import Settlement
    from runner.tasks.events import Event
    from runner.tasks.models import Task

#: states whose task may still own a row that nobody owns
_OPEN = {State.IN_DOUBT, State.HELD, State.SUBMITTING}
#: whether a task can still be accepted in this run: yes; no; or not while the doubts take its slots or wait for a
#: duplicate
Outlook = Literal["open", "final", "blocked"]

#: seconds within which a row that may be older than the send is still a possible match, if only wall clocks say so
_DAY = 86_400.0
#: doubtful tasks that share one scan
_BATCH = 200
#: readings of one scan; what needs more is not clean
_READINGS = 4
#: own tasks that show the order of a list
_FEWEST = 2
#: own rows of a model whose echo is compared in one reading, the latest
_SAMPLES = 8
#: doubtful tasks whose earlier readings are remembered
_MISSES = 1000
_NO_MARKS = "the list was seen to show tasks of ours without what they are recognised by"
_ALIKE = "in the list may be this one, or another that it shows alike"


class ReconcileStage:
    """Reconciles one group of operations that stand in one list."""

    state = State.IN_DOUBT
    #: one scan at a time
    concurrency = 1

    def __init__(self, session: ProviderSession, settlement: Settlement, operations: Sequence[str]) -> None:
        self._session, self._settlement, self._store = session, settlement, settlement.store
        self._operations = tuple(operations)
        #: body, trusted fields and ambiguity of each task, read once a scan
        self._cache: dict[int, tuple[Mapping[str, Any], Mapping[str, bool], bool]] = {}
        self._facts = session.facts_of(operations[0])
        listing = session.spec.reconcile.listing
        #: rows of the list show our references
        self._shows_references = listing is not None and listing.reference is not None
        #: the job's earlier tasks are among the facts
        self._loaded = self._reported_rest = False
        #: tasks that no row may be taken for, by the latest reading
        self._unsure: set[int] = set()
        #: the complete reading with the fewest rows that missed a task, by task
        self._missed: dict[int, MissedReading] = {}
        #: when the latest reading without it began, by task, seconds on the boot clock
        self._missed_at: dict[int, float] = {}
        #: the same of tasks that answered to their reference since, by id
        self._missed_rows: dict[str, float] = {}
        #: tasks at whose time the latest reading shows no own task
        self._alone: set[int] = set()
        #: tasks whose reference the provider did not know when it was asked
        self._unknown: set[int] = set()
        #: seconds by which the latest reading's times are ahead of the provider's clock; None: they mean nothing
        self._time_shift: float | None = 0.0
        #: the due time of the next scan, where a claim has just computed it and taken none; else empty
        self._computed_due: list[float | None] = []

    async def claim(self, _: int, held: set[int]) -> list[Sequence[Task]]:
        """Claim the due tasks as one batch."""
        session = self._session
        now = session.clock.now()
        due = None if session.dead else await self._due()
        self._computed_due = [due] if due is None or due > now else []
        if self._computed_due or session.dead:
            return []
        tasks = await self._store.claim_group(
            session.name,
            State.IN_DOUBT,
            now + 0.5,
            _BATCH,
            held,
            self._operations,
            lambda _: now + self._settlement.policy.quiet_time,
        )
        return [tasks] if tasks else []

    async def next_due(self) -> float | None:
        """Return when the next task is due, or None if nothing can be reconciled."""
        return self._computed_due.pop() if self._computed_due else await self._due()

    async def _due(self) -> float | None:
        session = self._session
        return None if session.dead else await self._store.next_due(session.name, State.IN_DOUBT, self._operations)

    async def work(self, batch: Sequence[Task]) -> None:
        """Ask for each task by its reference, and search the provider's list for the others."""
        await self._session.breaker.until_answering()
        if any(task.is_suspect for task in batch) and await self._outlook() == "open":
            clock = self._session.clock
            batch = await postpone_suspects(batch, self._facts, self._settlement, clock, self._missed_at)
        begun = self._session.clock.moment()
        rest = await self._by_reference(batch)
        if rest:
            await self._by_list(rest, begun)

    async def _by_reference(self, batch: Sequence[Task]) -> Sequence[Task]:
        """Ask for each task by our reference. Return the tasks that no answer decides, for the list."""
        session, rest = self._session, []
        for task in batch:
            if task.is_suspect and not (task.absences or task.failures):
                rest.append(task)  # one reading tells about all of them
                continue
            request, event = session.dialect.by_reference(task), None
            if request is not None:
                outcome = await session.send(request)
                event = read_reference(session.spec, task, outcome)
                self._remember_answer(task, event, outcome)
                if isinstance(event, Found) and task.id in self._missed_at:
                    self._missed_rows[event.remote_id] = self._missed_at.pop(task.id)
            if event is None or (isinstance(event, Found) and await self._is_claimed(event.remote_id)):
                rest.append(task)
            else:
                await self._settle(task, event)
        return rest

    def _remember_answer(self, task: Task, event: Event | None, outcome: Outcome) -> None:
        """Remember what a question by reference showed of the provider."""
        self._unknown.discard(task.id)
        if isinstance(event, Found):
            self._facts.learned.found_by_reference(task.operation, self._session.clock.now())
        elif event is None and not is_success(self._session.spec, outcome, "query"):
            meaning = classify_response(self._session.spec, outcome, "query").meaning
            if meaning == "absent" and len(self._unknown) < _MISSES:
                self._unknown.add(task.id)

    async def _settle(self, task: Task, event: Event) -> Task | None:
        """Settle a task, but let it rest where an absence is not for this state to judge: another may send it again.

        A task that was made under a refusal lowers what is believed of the provider, and that first.
        """
        if self._session.fence and isinstance(event, Missing):
            await self._settlement.set_aside([task])
            return None
        # an earlier send without an answer may have made it too, and then the refusal is innocent
        if isinstance(event, Found) and task.is_suspect and not task.doubts:
            await self._session.refusals.contradict(task, event.remote_id)
        return await self._settlement.settle(task, event)

    async def _is_claimed(self, remote_id: str) -> bool:
        """Return True if a task of ours, or of another job of the account, has this id."""
        claims = self._settlement.claims
        return (
            remote_id in self._facts
            or bool(await self._store.claimed_ids(self._session.name, [remote_id]))
            or (claims is not None and bool(await claims.owned_by_others([remote_id])))
        )

    async def _by_list(self, batch: Sequence[Task], begun: Moment) -> None:
        """Adopt what one reading shows. Believe an absence only where two readings in a row agree."""
        self._cache.clear()
        await self._load_witnesses()
        before: set[str] | None = None
        for _ in range(_READINGS):
            outlook = await self._outlook()
            reading = await read_list(self._session, self._operations[0], self._since(batch))
            if not isinstance(reading, Reading):
                failure = reading
                break
            self._facts.observe(reading)
            self._time_shift = self._facts.time_shift(reading)
            for row in reading.rows if self._missed_rows else ():
                self._learn_lag(row, self._missed_rows.pop(row.remote_id, None))
            # before anything is adopted: what own rows show says what other rows are worth
            own = await self._own_rows(reading, batch)
            rows = await unclaimed_rows(self._session, self._settlement, reading, self._facts, self._earlier)
            await self._find_unsure(batch, rows, own, begun)
            # of duplicates the oldest takes its row first
            oldest_first = sorted(batch, key=lambda task: task.submitted_at or 0.0)
            batch = [task for task in oldest_first if not await self._adopt(task, rows)]
            if len(self._missed_at) < _MISSES:
                self._missed_at.update((task.id, reading.begun.seconds) for task in batch)
            ids = {row.remote_id for row in rows}
            # what was refused is not under way, so that a single page about it needs no second look
            if not batch or ids == before or (reading.is_one_page and all(task.is_suspect for task in batch)):
                await self._settle_absent(batch, rows, own, begun, outlook)
                return
            before = ids
        else:
            failure = RetryableFailure(
                "trouble", TaskError("list_moves", None, "the provider's list changed with every reading")
            )
        for task in batch:
            await self._settlement.settle(task, failure)

    async def _find_unsure(
        self, batch: Sequence[Task], rows: Sequence[ListedTask], own: OwnRows, begun: Moment
    ) -> None:
        """Find the tasks that no row may be taken for yet.

        References count for nothing in a list that shows other references on own tasks. Without references: if more
        rows look like a request than answers of it were lost, nobody knows which are ours; where somebody else uses the
        account, a row counts after the quiet time, and not at all if the list hides a field of the request. No row
        counts if own rows of the model show another's request, or none is shown, or if it may be a duplicate's under
        another id.
        """
        self._unsure.clear()
        listing, now, reading = self._session.spec.reconcile.listing, self._session.clock.now(), own.reading
        if self._facts.shows_foreign_references(reading):
            self._unsure.update(task.id for task in batch)
        self._alone = {task.id for task in batch if not own.has_neighbour(claim_time(task, self._session.clock))}
        if listing is None or listing.reference:
            return
        self._unsure.update(
            task.id
            for task in batch
            if task.model in own.unrecognisable or own.shows_none(claim_time(task, self._session.clock))
        )
        similar = {task.id: [row for row in rows if await self._match(task, row) != "none"] for task in batch}
        explained = {row.remote_id for alike in similar.values() for row in alike}
        if await self._are_settled() and any(
            row.remote_id not in explained and self._is_of_today(row, now) for row in rows
        ):
            self._facts.stranger_at = now
        shared = now - self._facts.stranger_at < _DAY
        for task in batch:
            doubts, others = await self._store.open_duplicates(task.fingerprint), 0
            if self._settlement.claims is not None:
                others = len(await self._settlement.claims.other_doubts(task.fingerprint))
            body, trusted, _ = await self._known(task)
            waited = await self._waited(task, begun)
            # what is just being bought beside it, and not claimed yet, looks like a task made under the refusal
            crowded = waited < LONGEST_SUBMIT and self._session.capacity.other_processes_active()
            crowded = task.is_suspect and (doubts > 1 or others > 0 or crowded)
            hides = bool(hidden_fields(self._session.spec, body, trusted))
            early = crowded or (shared and waited < self._settlement.policy.quiet_time)
            since = self._earliest_row(task) - self._session.ahead - LONGEST_SUBMIT
            renamed = await self._store.ids_of_duplicates(task.fingerprint, since) - {
                row.remote_id for row in reading.rows
            }
            if len(similar[task.id]) > doubts + others or early or renamed or (hides and (shared or others)):
                self._unsure.add(task.id)

    async def _are_settled(self) -> bool:
        """Return True if no submit of this home can have made a row whose id nobody knows yet."""
        left = await self._store.submit_outlook(self._session.name, self._session.capacity.free_slots)
        return not left.is_submitting and not self._session.capacity.other_processes_active()

    def _is_of_today(self, row: ListedTask, now: float) -> bool:
        return not row.created or now + self._session.ahead - row.created < _DAY

    async def _adopt(self, task: Task, rows: list[ListedTask]) -> bool:
        """Adopt the row that matches the task and remove it from `rows`. Return False if none matches."""
        for row in sorted(rows, key=lambda each: each.created):
            if await self._match(task, row) == "match":
                rows.remove(row)
                self._learn_lag(row, self._missed_at.pop(task.id, None))
                mark = "reference" if self._shows_references else "request"
                await self._settle(task, Found(row.remote_id, f"found in the list by its {mark}"))
                return True
        return False

    def _learn_lag(self, row: ListedTask, missed_at: float | None) -> None:
        """Learn how late a list is from a row that a reading at `missed_at`, on the boot clock, had missed."""
        if missed_at is not None and row.created and self._time_shift is not None:
            clock = self._session.clock
            age = clock.now() + self._session.ahead - (row.created - self._time_shift)
            self._facts.saw_late(age - (clock.moment().seconds - missed_at))

    async def _settle_absent(
        self, batch: Sequence[Task], rows: Sequence[ListedTask], own: OwnRows, begun: Moment, outlook: Outlook
    ) -> None:
        """Settle what the reading makes of each task that it does not show.

        `outlook` is from before the reading: what was accepted after its begin is not missing from it. Once one task is
        bought again on the strength of the lag alone, it is the witness that the other doubts wait for.
        """
        resting, outlook_of_doubts = 0, outlook
        for task in batch:
            possible = [row for row in rows if await self._match(task, row) == "possible"]
            if possible:
                waited = await self._waited(task, begun)
                why = f"{', '.join(show_remote_id(row.remote_id) for row in possible[:3])} {_ALIKE}"
                event = Missing(quiet=waited >= self._settlement.policy.quiet_time, provable=False, why=why)
            elif task.is_suspect:
                event = await self._judge_suspect(task, own, begun, outlook)
            else:
                event = await self._judge(task, own, begun, outlook_of_doubts)
            after = await self._settle(task, event)
            if after is not None and after.state is State.QUEUED and not event.refundable and outlook != "open":
                outlook_of_doubts = "open" if await self._outlook() == "open" else outlook
            is_doubt = after is not None and after.state is State.IN_DOUBT and not after.is_suspect
            resting += is_doubt and after is not None and after.due_at is None
        if resting and not self._reported_rest:
            self._reported_rest = True
            tasks = pluralize(resting, "task")
            self._session.on_warning(
                f"{self._session.name}: {tasks} without an answer must wait for a later task that is accepted, or for "
                "`runner resolve`: until then nothing tells whether to buy again"
            )

    async def _judge(self, task: Task, own: OwnRows, begun: Moment, outlook: Outlook) -> Missing:
        """Return the event of a task that no row is, or may be."""
        waited, shortest, quiet_time = (
            await self._waited(task, begun),
            self._settlement.policy.quiet_time,
            self._facts.quiet_time,
        )
        if await self._is_echo_changed(task):
            return Missing(quiet=waited >= shortest, provable=False)
        if self._facts.learned.is_contradicted("reference_in_list"):
            return Missing(quiet=waited >= shortest, provable=False, why=_NO_MARKS)
        witnessed_only = self._settlement.policy.witnessed_only
        final = outlook != "open" and not witnessed_only
        found = judge_absence(
            own,
            sent_at=claim_time(task, self._session.clock),
            quiet_since=begun.seconds - waited + quiet_time,
            final=final and not await self._may_learn_echo(task),
            recognisable=await self._is_echo_known(task),
            missed=self._missed.get(task.id),
        )
        self._remember_miss(task, own)
        match found.verdict:
            case "proved":
                if task.id in self._unknown:
                    self._facts.learned.reference_unknown(task.operation, task.ref, self._session.clock.now())
                return Missing(quiet=waited >= quiet_time, refundable=found.by_witness, why=found.why)
            case "early":
                return Missing(quiet=False, why=found.why)
            case "contradicted":
                if found.is_incomplete:
                    self._facts.learned.contradict("own_rows", found.why, self._session.clock.now())
                return Missing(quiet=waited >= shortest, provable=False, why=found.why)
            case "unwitnessed":
                if witnessed_only and waited >= quiet_time:
                    left = await self._store.submit_outlook(self._session.name, self._session.capacity.free_slots)
                    if left.can_submit and self._session.admit_witness(self._facts, begun.seconds - waited):
                        return Missing(quiet=False, why=found.why)
                # a held task takes no slot and keeps no duplicate from being bought, and what is bought is a witness
                quiet = outlook != "open" and waited >= quiet_time
                return Missing(quiet=quiet, provable=outlook != "blocked", witnessed=False, why=found.why)
        assert_never(found.verdict)

    async def _judge_suspect(self, task: Task, own: OwnRows, begun: Moment, outlook: Outlook) -> Missing:
        """Return the event of a refused task that no row is, or may be."""
        session, policy, facts = self._session, self._settlement.policy, self._facts
        code = session.refusals.verdict(task.operation, task.error)
        if code == "free":
            return Missing(quiet=True, why=f"refused with {task.error.code}, which leaves no task")
        waited, is_open = await self._waited(task, begun), outlook == "open"
        final = not is_open and not policy.witnessed_only and waited >= facts.lag_bound
        found = judge_absence(
            own,
            sent_at=claim_time(task, session.clock),
            quiet_since=begun.seconds - waited,
            final=final and not await self._may_learn_echo(task),
            recognisable=await self._is_echo_known(task),
            missed=self._missed.get(task.id),
        )
        self._remember_miss(task, own)
        if await self._is_echo_changed(task) or facts.learned.is_contradicted("reference_in_list"):
            found = replace(found, verdict="contradicted", why=_NO_MARKS)
        blocked, strict = session.blocked is not None, policy.witnessed_only
        proved = proof_after(own, begun.seconds - waited) if found.by_witness else facts.lag_bound
        # a duplicate that was found may have taken the row that this refusal left, and its own request be under way
        may_be_taken = await self._store.has_adopted_duplicate(task.fingerprint)
        if may_be_taken or await self._store.open_duplicates(task.fingerprint) > 1:
            proved = facts.quiet_time
        view = SuspectView(code, waited, facts.quiet_time, facts.lag_bound, proved, is_open, blocked, strict)
        event = judge_suspect(found, view)
        if event.quiet and found.verdict == "proved":
            if not may_be_taken:
                await session.refusals.confirm(task)
        elif event.quiet and event.witnessed and event.provable:
            session.doubted.setdefault(task.id, task)
        return event

    def _remember_miss(self, task: Task, own: OwnRows) -> None:
        missed = own.miss(claim_time(task, self._session.clock))
        known = self._missed.get(task.id)
        if missed is not None and (known is None or missed.rows < known.rows) and len(self._missed) < _MISSES:
            self._missed[task.id] = missed

    async def _outlook(self) -> Outlook:
        """Return whether a task can still be accepted in this run."""
        session = self._session
        left = await self._store.submit_outlook(session.name, session.capacity.free_slots)
        stopped = session.blocked is not None or session.breaker.doubtful or not session.may_submit
        stopped = stopped or session.refusals.paused or session.waits_for_refund
        if left.is_submitting or (left.can_submit and not stopped):
            return "open"
        return "blocked" if left.has_queued and not stopped else "final"

    async def _load_witnesses(self) -> None:
        """Add the tasks that earlier runs of this job were given ids for, once in a run."""
        if self._loaded:
            return
        self._loaded = True
        clock = self._session.clock
        tasks = await self._store.witnesses(
            self._session.name, self._operations, MAX_WITNESSES, include_adopted=self._shows_references
        )
        self._facts.load(witness_from(task, clock) for task in tasks)

    async def _own_rows(self, reading: Reading, batch: Sequence[Task]) -> OwnRows:
        """Find our own tasks in a reading, and what they are recognised by."""
        rows = {row.remote_id: row for row in reading.rows}
        shown = [each for each in self._facts if each.remote_id in rows]
        listing, marks = self._session.spec.reconcile.listing, {}
        if listing is not None and listing.reference:
            marks = {each.remote_id: rows[each.remote_id].reference == each.ref for each in shown}
        elif listing is not None:
            for model in {task.model for task in batch}:
                for each in [each for each in shown if each.model == model and each.key][-_SAMPLES:]:
                    same = await self._compare_echo(each, rows[each.remote_id])
                    marks[each.remote_id] = all(same.get(field, True) for field in listing.proof)
                # of other jobs only a digest is known
                for each in [each for each in shown if each.model == model and each.proof and not each.key][-_SAMPLES:]:
                    marks[each.remote_id] = proof_of_row(self._session.spec, rows[each.remote_id]) == each.proof
        return OwnRows(reading, self._facts, marks, self._session.ahead)

    async def _compare_echo(self, witness: Witness, row: ListedTask) -> Mapping[str, bool]:
        """Learn from an own row which fields of its request the list gives back unchanged."""
        (task,) = await self._store.find_by_key_prefix(witness.key)
        body = self._session.dialect.body(task.operation, task.model, orjson.loads(task.request))
        same = compare_echo(self._session.spec, body, row.raw)
        await self._store.put_echoed_fields(self._session.name, witness.model, same)
        self._facts.learn_echo(witness.model, same, self._session.clock.now())
        if not all(same.values()):
            self._cache.clear()  # what is trusted may have changed
        return same

    async def find_surplus(self) -> list[str]:
        """Read the list once more, after the quiet time of this run's doubts, for tasks like ours that nobody owns.

        Return their ids: they are paid for beside the ones that we have. An adoption by our reference leaves no
        question open.
        """
        session, listing = self._session, self._session.spec.reconcile.listing
        tasks = [task for task in session.doubted.values() if task.operation in self._operations]
        if listing is None or session.dead or not tasks:
            return []
        now = [(await self._store.find_by_key_prefix(task.key))[0] for task in tasks]
        settled = [task for task in now if task.state not in _OPEN and not (listing.reference and task.adopted)]
        if not settled:
            return []
        waited = min([await self._waited(task, session.clock.moment()) for task in tasks])
        await anyio.sleep(max(0.0, self._settlement.policy.quiet_time - waited))
        reading = await read_list(session, self._operations[0], min(self._earliest_row(task) for task in tasks))
        if not isinstance(reading, Reading):
            return []
        self._cache.clear()
        self._facts.observe(reading)
        self._time_shift = self._facts.time_shift(reading)
        return [
            row.remote_id
            for row in await unclaimed_rows(self._session, self._settlement, reading, self._facts, self._earlier)
            if any([await self._match(task, row) == "match" for task in settled])
        ]

    async def _match(self, task: Task, row: ListedTask) -> Match:
        """Compare by our reference where the list has it, else by time and by what the list shows of the request."""
        listing = self._session.spec.reconcile.listing
        if listing is not None and listing.reference:
            if row.reference == task.ref:
                return "possible" if task.id in self._unsure else "match"
            # a host that has begun to drop references: no own task of these minutes shows that it keeps them
            may_be_dropped = not row.reference and task.id in self._alone and self._is_of_send(task, row)
            return "possible" if may_be_dropped else "none"
        body, trusted, ambiguous = await self._known(task)
        found = match(self._session.spec, body, row, trusted, ambiguous=ambiguous)
        if found == "match" and task.id in self._unsure:
            found = "possible"
        created = row.created and row.created - (self._time_shift or 0.0)
        sent_at = self._sent_at(task)
        if found == "none" or not created or created >= sent_at - CLOCK_TOLERANCE:
            return found
        earlier, now = self._earlier, self._session.clock.now() + self._session.ahead
        if earlier is not None and sent_at > now + CLOCK_TOLERANCE and created >= earlier.since - CLOCK_TOLERANCE:
            return found  # the wall clock of that boot was wrong, and only this job's start dates the row
        is_older = created < self._earliest_row(task) and self._time_shift is not None
        return "none" if is_older else "possible"

    def _is_of_send(self, task: Task, row: ListedTask) -> bool:
        """Return True if a row may have been created by the latest send of the task."""
        if not row.created or self._time_shift is None:
            return True
        after = row.created - self._time_shift - self._sent_at(task)
        return -LONGEST_SUBMIT <= after <= self._settlement.policy.quiet_time

    async def _known(self, task: Task) -> tuple[Mapping[str, Any], Mapping[str, bool], bool]:
        """Return the body as it was sent, the trusted fields of its model, and True if another request looks alike."""
        if task.id not in self._cache:
            (row,) = await self._store.find_by_key_prefix(task.key)
            body = self._session.dialect.body(task.operation, task.model, orjson.loads(row.request))
            trusted = self._facts.echo_of(task.model)
            for name, equal in (await self._store.echoed_fields(self._session.name, task.model)).items():
                trusted[name] = equal and trusted.get(name, True)
            ambiguous = await self._store.has_ambiguous_request(task.fingerprint, row.request.decode())
            self._cache[task.id] = (body, trusted, ambiguous)
        return self._cache[task.id]

    def _sent_at(self, task: Task) -> float:
        """Return when the task was sent by the provider's clock: its present time minus our boot clock's difference."""
        session = self._session
        if task.sent is None or task.sent.boot != session.clock.boot:
            return task.submitted_at or 0.0
        return session.clock.now() + session.ahead - (session.clock.moment().seconds - task.sent.seconds)

    def _earliest_row(self, task: Task) -> float:
        """Return the earliest creation time of its row. A wall clock of an earlier boot may have been hours ahead."""
        sure = task.sent is not None and task.sent.boot == self._session.clock.boot
        if not sure and self._earlier is not None:
            return self._earlier.since - CLOCK_TOLERANCE
        return self._sent_at(task) - (CLOCK_TOLERANCE if sure else _DAY)

    @property
    def _earlier(self) -> EarlierRows | None:
        """Return what stood in the list before this job, if it was read."""
        return self._session.earlier.get(self._session.dialect.group(self._operations[0]))

    def _since(self, batch: Sequence[Task]) -> float:
        """Return how far back the list is read: to before the sends, and to two own tasks that show its order."""
        session, since = self._session, min(self._earliest_row(task) for task in batch)
        latest = list(self._facts)[-_FEWEST:]
        if len(latest) < _FEWEST or session.clock.now() - latest[0].claimed_at > _DAY:
            return since
        return min(since, latest[0].claimed_at + session.ahead - CLOCK_TOLERANCE)

    async def _is_echo_known(self, task: Task) -> bool:
        """Return True if a list without references is known to show the fields by which a task is recognised."""
        listing = self._session.spec.reconcile.listing
        if listing is None or listing.reference:
            return False
        _, trusted, _ = await self._known(task)
        return all(trusted.get(field, False) for field in listing.proof)

    async def _is_echo_changed(self, task: Task) -> bool:
        """Return True if a list without references is known to change or hide such a field."""
        listing = self._session.spec.reconcile.listing
        if listing is None or listing.reference:
            return False
        _, trusted, _ = await self._known(task)
        return not all(trusted.get(field, True) for field in listing.proof)

    async def _may_learn_echo(self, task: Task) -> bool:
        """Return True if it is unknown what the list shows, and running tasks of the model will tell."""
        listing = self._session.spec.reconcile.listing
        _, trusted, _ = await self._known(task)
        unknown = listing is not None and not listing.reference and any(each not in trusted for each in listing.proof)
        return unknown and await self._store.is_model_running(self._session.name, task.model)

    async def _waited(self, task: Task, begun: Moment) -> float:
        """Return the seconds from the latest doubtful send of the same request until this scan began."""
        clock, claims = self._session.clock, self._settlement.claims
        sent = [(task.sent.boot, task.sent.seconds)] if task.sent else []
        if task.fingerprint:
            if await self._store.is_duplicate_submitting(task.fingerprint):
                return 0.0
            sent += await self._store.duplicate_sends(task.fingerprint)
            if claims is not None:
                sent += await claims.other_doubts(task.fingerprint)
        return min((clock.since(boot, seconds, begun) for boot, seconds in sent), default=0.0)
