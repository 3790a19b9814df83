"""Any order of everything that can happen to a job's store, with the process dying between any two statements.

`Expectation` says what must be true; after every step an onlooker reads the files, and the two are compared.
Larger: `EXAMPLES_TIMES=100 pytest tests/store/test_machine.py`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runner.errors import DiskError, StateError
from runner.lifecycle.events import (
    Accepted,
    Blocked,
    Claimed,
    Finished,
    Found,
    Interrupted,
    LinkExpired,
    Missing,
    Pending,
    Refused,
    Resolved,
    Retried,
    Saved,
    Setback,
)
from runner.lifecycle.patience import Patience
from runner.lifecycle.task import Fault, Moment, Output, State
from runner.lifecycle.transitions import BY_PERSON, advance
from runner.store.rebuild import rebuild
from runner.store.store import Store

from .conftest import NOW
from .expectation import PROVIDERS, Expectation, additions, as_told, is_told
from .machine import Hand, bought_blindly, keys_in, lines_of, look

TIMES = int(os.environ.get("EXAMPLES_TIMES", "1"))
#: what a dead process leaves does not depend on the disk, and memory is faster
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
TIRED = Fault("trouble", "5000", "the other side is tired")
#: short, so that every end is near
PATIENCE = Patience(attempts=2, throttles=3, doubt=4.0, sends=2, unclean=2, unknown=2, settlings=2, refreshes=2)

QUEUED, SUBMITTING, IN_DOUBT, HELD = State.QUEUED, State.SUBMITTING, State.IN_DOUBT, State.HELD
RUNNING, READY = State.RUNNING, State.READY


class Trouble(NamedTuple):
    """What goes wrong during one operation: its kind as `Hand` knows it, which time, how much of it."""

    kind: str = ""
    nth: int = 1
    part: float = 0.0

    @property
    def fills(self):
        return self.kind.startswith("full")


CALM = Trouble()
CRASHES = ("crash before", "crash after", "crash torn journal", "crash torn commit")
FULL = ("full begin", "full update", "full mark", "full commit", "full journal", "full ever more")
KINDS = st.one_of(st.just(""), st.just(""), st.sampled_from(CRASHES), st.sampled_from(FULL))
TROUBLE = st.builds(Trouble, KINDS, st.integers(1, 3), st.floats(0, 0.99))
PICK = st.integers(0, 40)
PICKS = st.lists(st.tuples(PICK, PICK), min_size=1, max_size=4)
ALL = st.permutations(range(8))
NUMBERS = st.one_of(ALL, ALL.map(lambda numbers: numbers[:6]), st.lists(st.integers(0, 7), unique=True, max_size=4))
#: of a job's files; nothing is what a plain signal takes away
LOST = st.sampled_from([(), (), ("state.db",), ("state.db", "state.db-wal"), ("state.db-wal",)])
WAIT = st.sampled_from([1.0, 1000.0, 1000.0, 200_000.0])


def among(*states):
    """A rule for tasks of these states, while there are some that nothing stands in the way of."""
    return precondition(lambda job: job.free(*states))


class Job(RuleBasedStateMachine):
    """One job's store, its directory, and what must be true of both."""

    def __init__(self):
        super().__init__()
        self.loop, self.must = asyncio.Runner(), Expectation()
        self.home = Path(tempfile.mkdtemp(prefix="genrunner-machine-", dir=MEMORY))
        self.hand = Hand(self.home / "job")
        self.store = self.old = self.uuid = None
        self.epoch, self.now, self.names = 0, NOW, 0
        #: what the manifest says, and whether the store has been told all of it
        self.manifest, self.planned, self.digest = ([], 0), False, ""
        #: the disk was full: this process writes what it can and ends
        self.limping = False
        #: intents that a full disk let into the journal alone
        self.given_up = set()
        #: every id that a purchase was ever known by
        self.ids = set()

    def teardown(self):
        self.close("store")
        self.close("old")
        self.loop.close()
        shutil.rmtree(self.home)

    @initialize(can_look_up=st.sampled_from([True, True, False]), numbers=ALL)
    def begins(self, can_look_up, numbers):
        self.patience = replace(PATIENCE, can_look_up=can_look_up)
        self.open()
        self.uuid = self.store.uuid
        self.say(numbers, 0, CALM)

    # the process

    def attempt(self, trouble, work):
        """What `work` returned, and the DiskError it ended in; the hand strikes while it runs.

        What an error has left in the journal alone is in the database before anything else.
        """
        if self.must.pending and self.store and trouble.kind:
            self.attempt(CALM, self.store.counts)
        journal = self.store._writer.journal if self.store else None
        file, full = journal and journal._file, None
        if trouble.kind == "full journal" and journal:
            full = journal._file = os.open("/dev/full", os.O_WRONLY)
        self.hand.arm(*trouble)
        try:
            return self.loop.run(work()), None
        except DiskError as error:
            return None, error
        finally:
            self.hand.kind = ""
            if full is not None:
                journal._file = file
                os.close(full)
            if self.store and not trouble.kind:
                self.must.catches_up(look(self.hand.directory))

    def open(self, trouble=CALM):
        """A start: what only the journal knew is in the database now, and nothing else has changed."""
        store, error = self.attempt(trouble, lambda: Store.open(self.hand.directory, connect=self.hand.connect))
        assert error is None or trouble.fills
        self.store = store
        if error is not None or self.hand.copy is not None:
            self.move(self.hand.copy or self.hand.directory)
            return
        assert store.epoch > self.epoch
        assert self.uuid in {None, store.uuid}
        self.epoch, self.limping = store.epoch, False
        self.must.start(look(self.hand.directory))

    def move(self, directory):
        """The process dies, and another one finds the files that it left."""
        self.close("store")
        self.hand.directory = directory
        self.open()

    def close(self, name):
        store = getattr(self, name)
        setattr(self, name, None)
        if store is not None:
            self.loop.run(store.aclose())

    def size(self):
        return (self.hand.directory / "journal.jsonl").stat().st_size

    def change(self, trouble, work, before, after):
        """A change of one task in one transaction, and whatever strikes in the middle of it; what became of it."""
        trouble = trouble if trouble.fills else trouble._replace(nth=1)
        reserve, row = self.store._writer.ballast.exists(), self.must.tasks[before.key]
        behind = bool(self.must.pending)
        size = self.size()
        done, error = self.attempt(trouble, work)
        if error is not None:
            self.fails(trouble, row, after, reserve=reserve, journaled=self.size() > size)
        elif done not in {"clash", "stale", None}:
            self.must.becomes(after)
            assert behind or (self.size() > size) == is_told(before, after)
            if self.hand.copy and not self.hand.counts:
                self.must.loses(row, after, torn=trouble.kind == "crash torn journal")
        if self.hand.copy:
            self.move(self.hand.copy)
        return done if error is None else error

    def fails(self, trouble, before, after, *, reserve, journaled):
        """Nothing has changed in the database; what the journal says already, the next transaction will know."""
        if not self.limping:
            assert trouble.fills
            once = trouble.nth == 1 and trouble.kind not in {"full journal", "full ever more"}
            assert not (once and reserve) or after.state is SUBMITTING, "the reserve is there for this"
        self.limping = True
        if journaled:
            self.must.hears(after)
            self.must.pending[after.key] = (as_told(after), after.state is not SUBMITTING)
            self.given_up |= {after.key} if after.state is SUBMITTING else set()
            last = lines_of(self.hand.directory)[-1]
            if after.state is SUBMITTING and (last["t"], last["ref"]) == ("settle", after.ref):
                self.must.takes_back(before)
                self.must.pending[after.key] = (before, True)

    # the manifest

    @precondition(lambda self: not self.limping)
    @rule(numbers=NUMBERS, salt=st.integers(0, 2), trouble=TROUBLE)
    def the_manifest_says(self, numbers, salt, trouble):
        self.say(numbers, salt, trouble)

    def say(self, numbers, salt, trouble):
        self.manifest, digest = (numbers, salt), f"{numbers} {salt}"
        drafts = additions(numbers, salt)
        _, error = self.attempt(trouble, lambda: self.store.add(iter(drafts), digest, self.now))
        self.planned = error is None and self.hand.copy is None
        if self.planned:
            if digest != self.digest:
                self.must.plan(drafts, look(self.hand.directory))
            self.digest = digest
            return
        self.limping = error is not None
        if self.hand.copy:
            self.move(self.hand.copy)
        seen = look(self.hand.directory)
        self.must.half_plan(drafts, seen)
        self.digest = seen.digest

    # buying

    @precondition(lambda self: not self.limping)
    @rule(
        provider=st.sampled_from(PROVIDERS),
        room=st.sampled_from([0, 1, 9, 9]),
        cap=st.sampled_from([None, None, 4.0, 12.0]),
        count=st.integers(1, 3),
        trouble=TROUBLE,
    )
    def the_next_are_bought(self, provider, room, cap, count, trouble):
        if not self.planned:  # a run never buys before it has read its manifest
            self.say(*self.manifest, CALM)
        for left in reversed(range(count)):
            if not self.limping:
                self.buy_next(provider, room, cap, CALM if left else trouble)

    def buy_next(self, provider, room, cap, trouble):
        due = self.must.due(provider, QUEUED, self.now) if room else []
        if not self.store._writer.ballast.exists():
            _, error = self.attempt(CALM, lambda: self.buy(self.store, provider, room, cap))
            assert error is not None
        elif not due or self.is_too_dear(due[0], cap):
            assert self.loop.run(self.buy(self.store, provider, room, cap)) == ("too dear" if due else None)
        else:
            after = self.claimed(due[0])
            done = self.change(trouble, lambda: self.buy(self.store, provider, room, cap), due[0], after)
            assert done == after or isinstance(done, DiskError)

    def buy(self, store, provider, room, cap):
        return store.claim_queued(provider, self.now, room, self.claimed, cap=cap)

    def claimed(self, task):
        return advance(task, Claimed(Moment("boot", self.now), self.now), self.now, self.patience)

    def is_too_dear(self, task, cap):
        spent = sum(each.spent for each in self.must.tasks.values())
        return cap is not None and (task.cost is None or round(spent + task.cost, 6) > cap)

    # what happens to tasks

    def free(self, *states):
        """Tasks of these states, but for those that an error has left between journal and database."""
        tasks = [task for key, task in self.must.tasks.items() if task.state in states and key not in self.must.pending]
        return sorted(tasks, key=lambda task: task.key)

    @among(SUBMITTING)
    @rule(picks=PICKS, wait=WAIT, trouble=TROUBLE)
    def sends_are_settled(self, picks, wait, trouble):
        self.some_happen((SUBMITTING,), picks, wait, trouble)

    @among(IN_DOUBT, HELD)
    @rule(picks=PICKS, wait=WAIT, trouble=TROUBLE)
    def doubts_are_settled(self, picks, wait, trouble):
        self.some_happen((IN_DOUBT, HELD), picks, wait, trouble)

    @among(RUNNING, READY)
    @rule(picks=PICKS, wait=WAIT, trouble=TROUBLE)
    def what_is_paid_goes_on(self, picks, wait, trouble):
        self.some_happen((RUNNING, READY), picks, wait, trouble)

    @among(State.DONE, State.FAILED, State.STRANDED)
    @rule(picks=PICKS, wait=WAIT, trouble=TROUBLE)
    def a_person_asks_again(self, picks, wait, trouble):
        self.some_happen((State.DONE, State.FAILED, State.STRANDED), picks, wait, trouble)

    @precondition(lambda self: len(self.free(QUEUED)) > 5)
    @rule(pick=PICK, trouble=TROUBLE)
    def a_person_names_an_orphan(self, pick, trouble):
        self.some_happen((QUEUED,), [(pick, 0)], 1.0, trouble)

    def some_happen(self, states, picks, wait, trouble):
        """One after another; what strikes, strikes the last."""
        for left, (pick, which) in reversed([*enumerate(reversed(picks))]):
            if tasks := self.free(*states):
                self.something_happens(tasks[pick % len(tasks)], which, wait, CALM if left else trouble)

    def something_happens(self, task, which, wait, trouble):
        self.now += wait
        events = self.events(task)
        event = events[which % len(events)]
        if isinstance(event, Saved):
            if not all(self.record(task.key, output) for output in event.outputs):
                return
            task = self.must.tasks[task.key]
        before = task if task.state is READY else replace(task, outputs=())
        after = advance(before, event, self.now, self.patience)
        clash = after.remote_id is not None and after.remote_id in self.must.taken(task)
        done = self.change(trouble, lambda: self.store.settle(before, after), before, after)
        assert done == ("clash" if clash else "done") or isinstance(done, DiskError)

    def events(self, task):  # noqa: PLR0911 - a table
        """What may happen to it next; ids are new, or belong to another task."""
        ids = [self.fresh(), *sorted(self.must.taken(task))[:2] * 2]
        person = [Resolved("absent", "ann"), Resolved("abandon", "ann")]
        match task.state:
            case State.QUEUED:
                return [Resolved("adopt", "ann", self.fresh())]
            case State.SUBMITTING:
                setbacks = [Setback(kind, TIRED) for kind in ("trouble", "throttled", "window", "unsent")]
                doubts = [*[Interrupted("no answer")] * 5, Interrupted("no id", hopeless=True)]
                refusals = [Blocked("credit", TIRED), Refused(TIRED), Refused(TIRED, maybe_taken=True)]
                return [*map(Accepted, ids), *doubts, *setbacks, *refusals]
            case State.IN_DOUBT:
                missing = [Missing(quiet=False), Missing(quiet=True), Missing(quiet=True, provable=False)]
                return [*map(Found, ids), *missing, *missing, Setback("trouble", TIRED), Blocked("account", TIRED)]
            case State.HELD:
                return [*(Resolved("adopt", "ann", remote_id) for remote_id in ids), *person]
            case State.RUNNING:
                links = [Output(number, f"https://a.example/{self.fresh()}") for number in range(1, 2 + task.id % 2)]
                setbacks = [Setback("trouble", TIRED), Setback("absent", TIRED), Blocked("account", TIRED)]
                ends = [Finished(tuple(links)), Finished(tuple(links)), Refused(TIRED), Refused(TIRED, billed=False)]
                others = [Resolved("adopt", "ann", remote_id) for remote_id in ids[:2]]
                doubted = [*others, *person] if task.evidence.startswith(BY_PERSON) else []
                return [*ends, Pending(), Pending(settling=True), *setbacks, *doubted]
            case State.READY:
                files = tuple(self.file(task, output) for output in task.outputs)
                return [Saved(files), Saved(files), LinkExpired(TIRED), Setback("trouble", TIRED)]
            case State.FAILED if task.remote_id is not None and task.fault.reason != "abandoned":
                return [Retried(), Finished((Output(1, f"https://a.example/{self.fresh()}"),))]
            case _:
                return [Retried()]

    def fresh(self):
        self.names += 1
        return f"id-{self.names}"

    def file(self, task, output):
        name = f"{task.name}-{output.number}.png"
        return replace(output, file=name, bytes=self.names, sha256="ab", media_type="image/png")

    def record(self, key, output):
        """Whether what a file will be is on disk."""
        _, error = self.attempt(CALM, lambda: self.store.record(self.must.tasks[key], output))
        assert error is None or self.limping
        if error is None:
            self.must.records(key, output)
        return error is None

    # what stages take

    @precondition(lambda self: not self.limping)
    @rule(
        provider=st.sampled_from(PROVIDERS),
        state=st.sampled_from([IN_DOUBT, RUNNING, READY]),
        limit=st.integers(1, 3),
        group=st.booleans(),
    )
    def due_tasks_are_claimed(self, provider, state, limit, group):
        held = {task.id for task in self.must.tasks.values() if task.id % 5 == 4}
        due = [task for task in self.must.due(provider, state, self.now) if task.id not in held][:limit]
        if group:
            claim = self.store.claim_group(provider, state, self.now, limit, held, ["image"], lambda _: self.now + 60)
        else:
            claim = self.store.claim(provider, state, self.now, limit, held, lambda _: self.now + 60)
        claimed = self.loop.run(claim)
        assert [task.key for task in claimed] == [task.key for task in due]
        for task in due:
            self.must.tasks[task.key] = replace(task, due_at=self.now + 60)
        if state is READY and not group:
            assert claimed == [self.must.tasks[task.key] for task in due]
            for task in due[:1]:
                self.record(task.key, self.file(task, task.outputs[0]))

    # what happens to the process

    @rule(trouble=TROUBLE)
    def it_ends_and_begins_again(self, trouble):
        self.close("store")
        self.open(trouble)
        self.loop.run(self.store.wake(self.now))
        self.must.wake(self.now)

    @rule(lost=LOST)
    def it_is_killed(self, lost):
        """By a signal; or by a person, who then puts some of its files back."""
        copy = self.hand.left(*lost)
        if not lost:
            self.move(copy)
            return
        keys = None if "state.db" in lost else keys_in(copy)
        self.close("store")
        self.hand.directory, self.planned = copy, False
        self.open_incomplete(copy, keys)
        self.digest = look(copy).digest

    def open_incomplete(self, copy, keys):
        try:
            self.store = self.loop.run(Store.open(copy, connect=self.hand.connect))
        except StateError:
            drafts = additions(*self.manifest)
            rebuild(copy, iter(drafts), self.now)
            self.must.rebuilt(drafts, look(copy))
            self.open()
        else:
            assert self.must.told.keys() <= (keys or set()), "a database without the rows of what was bought"
            self.must.reverted(look(copy))
            self.epoch, self.limping = self.store.epoch, False

    @precondition(lambda self: not self.limping)
    @rule(pick=PICK, which=PICK)
    def a_second_writer_takes_over(self, pick, which):
        self.checkpoint()
        self.old, self.store = self.store, None
        self.open()
        if tasks := self.free(*set(State) - {QUEUED}):
            task = tasks[pick % len(tasks)]
            events = self.events(task)
            after = advance(task, events[which % len(events)], self.now, self.patience)
            assert self.loop.run(self.old.settle(task, after)) == "stale"
        if not self.old._writer.exhausted:
            for provider in PROVIDERS:
                assert self.loop.run(self.buy(self.old, provider, 9, None)) is None
        self.close("old")

    def checkpoint(self):
        """What is in the log so far goes into the database itself, as SQLite does now and then."""
        checkpoint = "pragma wal_checkpoint"
        self.loop.run(self.store._writer.set_up(lambda connection: connection.execute(checkpoint).fetchall() and None))

    # what must be true after every step

    @invariant()
    def everything_that_must_be_true_is(self):
        seen, lines = look(self.hand.directory), lines_of(self.hand.directory)
        expected = self.must.rows()
        assert {key: {name: row[name] for name in expected[key]} for key, row in seen.rows.items()} == expected
        assert seen.counts == Counter(task.state for task in seen.tasks.values())
        assert seen.spent == pytest.approx(sum(task.spent for task in seen.tasks.values()))
        assert bought_blindly(lines, self.given_up) is None
        self.has_every_id(seen, {line["remote_id"] for line in lines if line["t"] == "id"})
        if not self.limping:
            self.is_said_by_the_store(seen)

    def has_every_id(self, seen, in_journal):
        """Ids are unique, those of earlier purchases too, and never vanish."""
        live = [(task.provider, task.remote_id) for task in seen.tasks.values() if task.remote_id is not None]
        assert len(set(live)) == len(live)
        assert not seen.former & set(live)
        self.ids |= {*live, *seen.former}
        assert self.ids <= seen.former | set(live)
        assert {remote_id for _, remote_id in self.ids} <= in_journal

    def is_said_by_the_store(self, seen):
        assert self.loop.run(self.store.counts()) == seen.counts
        for provider in PROVIDERS:
            ids = [remote_id for name, remote_id in self.ids if name == provider]
            assert self.loop.run(self.store.claimed(provider, ids)) == set(ids)


TestJob = Job.TestCase
TestJob.settings = settings(
    max_examples=40 * TIMES, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
