"""Mutants: wrong programs that each lack one rule of the protocol. The simulation must detect them all."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

from runner.providers import responses
from runner.providers.requests import NoAnswer, Reply
from runner.scheduler import reconcile, session
from runner.scheduler.clock import Clock
from runner.scheduler.evidence import Absence
from runner.scheduler.list_facts import ListFacts
from runner.scheduler.listing import Reading, read_first_page
from runner.scheduler.poll import PollStage
from runner.scheduler.reconcile import ReconcileStage
from runner.scheduler.refusals import Refusals
from runner.scheduler.run import Run
from runner.store import database
from runner.store import store as stores
from runner.store.store import Store
from runner.tasks import retry_policy
from runner.tasks.events import RetryableFailure
from runner.tasks.models import NO_ERROR, Moment, State
from tests.simulation import world
from tests.simulation.faults import Crash, Life, draw

if TYPE_CHECKING:
    from collections.abc import Mapping


@contextmanager
def _patched(*patches):
    with ExitStack() as stack:
        for target, name, value in patches:
            stack.enter_context(mock.patch.object(target, name, value))
        yield


def _believe(*_, **__):
    return Absence("proved", "absent")


async def _sure(*_):
    """Take every row that matches."""


#: rules that protect each other: without the evidence of the list, each of the older rules is needed again
_NO_EVIDENCE = ((reconcile, "judge_absence", _believe), (ReconcileStage, "_find_unsure", _sure))


def _classifying(change):
    def classify(spec, outcome, phase, classify=responses.classify_response):
        return change(outcome, phase, classify(spec, outcome, phase))

    return _patched((session, "classify_response", classify), (responses, "classify_response", classify))


def send_before_claim():
    """H2: the request leaves before its intent is on disk."""
    write = Store._settle
    waiting = {}

    def later(self, connection, before, after):
        if after.state is State.SUBMITTING:
            waiting[before.id] = (before, after)
            return "done"
        if before.id in waiting:
            write(self, connection, *waiting.pop(before.id))
        return write(self, connection, before, after)

    return _patched((Store, "_settle", later))


def silence_is_not_sent():
    """H6: a broken connection counts as proof that nothing was sent."""

    def change(outcome, phase, classification):
        return (
            replace(classification, meaning="unsent")
            if isinstance(outcome, NoAnswer) and phase == "submit"
            else classification
        )

    return _classifying(change)


def unknown_is_refused():
    """H8: an unknown response counts as a refusal."""

    def change(outcome, phase, classification):
        unknown = isinstance(outcome, Reply) and phase == "submit" and classification.meaning == "doubt"
        return replace(classification, meaning="invalid") if unknown else classification

    return _classifying(change)


@contextmanager
def taken_is_refused():
    """H9: 1201 on a later send counts as a refusal, although it may mean that the reference exists."""
    # refusals that are looked up would notice it as well, and so would a list whose lag killed runs have shown
    believed = (Refusals, "check", lambda _, __, event: event)
    unlearned = (ListFacts, "_learn_from_earlier_runs", lambda *_: None)
    with (
        _patched(*_NO_EVIDENCE, believed, unlearned),
        _classifying(lambda _, __, found: replace(found, maybe_taken=False)),
    ):
        yield


def absent_at_once():
    """M4: a task counts as absent before the quiet time D."""

    async def waited(self, task, begun):
        return 1e9

    return _patched((ReconcileStage, "_waited", waited), *_NO_EVIDENCE)


def one_scan():
    """H11: one reading of the list proves absence."""

    async def by_list(self, batch, begun):
        self._cache.clear()
        reading = await reconcile.read_list(self._session, self._operations[0], 0.0)
        if not isinstance(reading, Reading):
            for task in batch:
                await self._settlement.settle(task, reading)
            return
        rows = await reconcile.unclaimed_rows(self._session, self._settlement, reading, self._facts, self._earlier)
        batch = [task for task in batch if not await self._adopt(task, rows)]
        await self._settle_absent(batch, rows, await self._own_rows(reading, batch), begun, "final")

    return _patched(
        (ReconcileStage, "_by_list", by_list),
        *_NO_EVIDENCE,
        (world, "RetryPolicy", partial(retry_policy.RetryPolicy, required_absences=1)),
    )


def failed_page_is_clean():
    """H11: a page that could not be read counts as an empty one."""
    read = reconcile.read_list

    async def read_list(session, *args):
        reading = await read(session, *args)
        return reading if isinstance(reading, Reading) else Reading((), session.clock.moment())

    return _patched((reconcile, "read_list", read_list), *_NO_EVIDENCE)


def first_page_only():
    """H12: only the first page of the list is read."""

    async def read_list(session, operation, since):
        return await read_first_page(session, operation) or RetryableFailure("trouble", NO_ERROR)

    return _patched((reconcile, "read_list", read_list), *_NO_EVIDENCE)


def doubt_by_wall_clock():
    """H10: D is measured by the wall clock, which can be set."""
    return _patched(
        (Clock, "moment", lambda self: Moment("wall", self.now())),
        (Clock, "since", lambda self, boot, seconds, until: until.seconds - seconds),
    )


def breaker_stops_polls():
    """H15: too many doubts stop polls of paid tasks as well."""
    work = PollStage.work

    async def stopped(self, batch):
        await self._session.breaker.until_safe()
        await work(self, batch)

    return _patched((PollStage, "work", stopped))


def own_doubt_only():
    """M11, M12: D counts from the task's own send, and duplicates are ignored."""
    gate = "duplicate.state = 'in_doubt'))"
    claim = database.statements()["claim_queued"]
    assert claim.count(gate) == 1
    open_ = {**database.statements(), "claim_queued": claim.replace(gate, "duplicate.state = 'nothing'))")}

    async def none(self, fingerprint):
        return []

    return _patched(
        (Store, "duplicate_sends", none),
        (Store, "is_duplicate_submitting", none),
        (database, "statements", lambda: open_),
        *_NO_EVIDENCE,
    )


def clash_ignored():
    """M13: two tasks may have one id."""
    migrate = stores.migrate

    def without_index(connection):
        migrate(connection)
        connection.execute("drop index if exists task_remote")

    return _patched((stores, "migrate", without_index), (stores, "check_schema", lambda _: None))


def no_mark_at_start():
    """R2 is missing: requests in flight when the process died are not put in doubt."""

    async def recover(self):
        await self._store.wake(self._clock.now())

    return _patched((Run, "_recover", recover))


def id_not_journaled():
    """H1: the id is not written to the journal."""
    line_for_change = stores.line_for_change

    def silent(before, after):
        line = line_for_change(before, after)
        return None if line is not None and line["t"] == "id" else line

    return _patched((stores, "line_for_change", silent))


def queued_waits_for_the_wall():
    """FC1: a queued task waits for a wall-clock time from before the clock was set back."""
    wake = "update task set due_at = :now, failures = 0, looks = 0 where state in ('running', 'ready', 'in_doubt')"
    found = {**database.statements(), "wake": wake}
    return _patched((database, "statements", lambda: found))


@dataclass(frozen=True)
class Where:
    """The provider class and the mode in which a rule matters. None: drawn by the seed."""

    kind: str | None = None
    liveness: bool | None = None
    #: what is not left to the seed, so that the rule is needed often
    theme: Mapping[str, Any] = field(default_factory=dict)

    def plan(self, seed):
        return replace(draw(seed, kind=self.kind, liveness=self.liveness), **self.theme)


#: requests arrive late and lists show them later still: what is believed too early is believed wrongly
_LATE = {"submit": {"late": 0.4, "answer_lost": 0.2, "slow_answer": 0.2}, "lag": 0.95, "doubt": 120.0}
#: the wall clock is set forward while something is in doubt, and the client dies so that it is read again
_CLOCKS = {"lives": tuple(Life(crash=Crash("time", 20.0), pause=2.0, wall_jump=3600.0) for _ in range(3))}
_DUPLICATES = {"prompts": 2, "repeat": 4, "rate": 5.0, "outages": (), "storms": (), "trims": False}
MUTANTS = {
    send_before_claim: Where(),
    silence_is_not_sent: Where(),
    unknown_is_refused: Where(),
    taken_is_refused: Where("kling"),
    absent_at_once: Where(),
    one_scan: Where("chanjing", theme={**_LATE, "skips": True, "trims": False, "prompts": 12, "repeat": 1}),
    failed_page_is_clean: Where(
        "chanjing", theme={**_LATE, "query": {"status_5xx": 0.4}, "trims": False, "prompts": 12, "repeat": 1}
    ),
    first_page_only: Where("chanjing"),
    doubt_by_wall_clock: Where(theme={**_LATE, **_CLOCKS, "hides": False}),
    breaker_stops_polls: Where("kling-gateway", liveness=True),
    own_doubt_only: Where("chanjing", theme={**_LATE, **_DUPLICATES}),
    clash_ignored: Where(
        "chanjing", theme={**_DUPLICATES, "submit": {"slow_answer": 0.6, "status_5xx": 0.3}, "lag": 0.0}
    ),
    no_mark_at_start: Where(liveness=True),
    id_not_journaled: Where(),
    queued_waits_for_the_wall: Where(liveness=True),
}
