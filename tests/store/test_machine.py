"""Any order of everything that can happen to a job's store, with crashes between any two statements.

`Expectation` is the model. After every step the files are read as another program does, and compared with it.
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
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from runner.errors import DiskError, StateError
from runner.store.rebuild import rebuild
from runner.store.store import Store
from runner.tasks.events import (
    Accepted,
    AccountBlocked,
    Claimed,
    Finished,
    Found,
    Interrupted,
    LinkExpired,
    Missing,
    Pending,
    Rejected,
    Resolved,
    Retried,
    RetryableFailure,
    Saved,
)
from runner.tasks.models import Moment, Output, State, TaskError
from runner.tasks.retry_policy import RetryPolicy
from runner.tasks.transitions import ADOPTED_BY_USER, advance

from .conftest import NOW
from .expectation import PROVIDERS, Expectation, additions, as_journaled, is_journaled
from .machine import FaultInjector, find_double_purchase, keys_in, read_lines, read_state

TIMES = int(os.environ.get("EXAMPLES_TIMES", "1"))
#: the files of a dead process do not depend on the disk, and memory is faster
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
BUSY = TaskError("trouble", "5000", "the other side is tired")
#: short, so that every limit is reached soon
POLICY = RetryPolicy(
    max_attempts=2,
    max_throttles=3,
    quiet_time=4.0,
    max_doubts=2,
    max_unclean=2,
    max_unknown=2,
    max_settlings=2,
    max_refreshes=2,
)

QUEUED, SUBMITTING, IN_DOUBT, HELD = State.QUEUED, State.SUBMITTING, State.IN_DOUBT, State.HELD
RUNNING, READY = State.RUNNING, State.READY


class InjectedFault(NamedTuple):
    """A fault during one operation: its kind (see `FaultInjector`), which time, and how much of it."""

    kind: str = ""
    nth: int = 1
    part: float = 0.0

    @property
    def fills(self):
        return self.kind.startswith("full")


NO_FAULT = InjectedFault()
CRASHES = ("crash before", "crash after", "crash torn journal", "crash torn commit")
FULL = ("full begin", "full update", "full mark", "full commit", "full journal", "full ever more")
KINDS = st.one_of(st.just(""), st.just(""), st.sampled_from(CRASHES), st.sampled_from(FULL))
INJECTED_FAULTS = st.builds(InjectedFault, KINDS, st.integers(1, 3), st.floats(0, 0.99))
PICK = st.integers(0, 40)
PICKS = st.lists(st.tuples(PICK, PICK), min_size=1, max_size=4)
ALL = st.permutations(range(8))
NUMBERS = st.one_of(ALL, ALL.map(lambda numbers: numbers[:6]), st.lists(st.integers(0, 7), unique=True, max_size=4))
#: lost files of a job; a plain kill loses none
LOST = st.sampled_from([(), (), ("state.db",), ("state.db", "state.db-wal"), ("state.db-wal",)])
WAIT = st.sampled_from([1.0, 1000.0, 1000.0, 200_000.0])


def among(*states):
    """Return a precondition: there are tasks of these states that are not pending."""
    return precondition(lambda job: job.free(*states))


class Job(RuleBasedStateMachine):
    """One job's store, its directory, and the model of both."""

    def __init__(self):
        super().__init__()
        self.loop, self.expected = asyncio.Runner(), Expectation()
        self.home = Path(tempfile.mkdtemp(prefix="genrunner-machine-", dir=MEMORY))
        self.injector = FaultInjector(self.home / "job")
        self.store = self.old = self.uuid = None
        self.epoch, self.now, self.names = 0, NOW, 0
        #: the manifest, and whether the store has all of it
        self.manifest, self.planned, self.digest = ([], 0), False, ""
        #: True after a full disk: this process writes what it can and ends
        self.failing = False
        #: keys of intents that are in the journal only, because of a full disk
        self.given_up = set()
        #: every remote id that a purchase ever had
        self.ids = set()

    def teardown(self):
        self.close("store")
        self.close("old")
        self.loop.close()
        shutil.rmtree(self.home)

    @initialize(can_reconcile=st.sampled_from([True, True, False]), numbers=ALL)
    def begins(self, can_reconcile, numbers):
        self.policy = replace(POLICY, can_reconcile=can_reconcile)
        self.open()
        self.uuid = self.store.uuid
        self.add_manifest(numbers, 0, NO_FAULT)

    # the process

    def attempt(self, injected, work):
        """Run `work` with a fault injected; return its result and the DiskError that it raised.

        Changes that an error left in the journal only must be in the database before anything else.
        """
        if self.expected.pending and self.store and injected.kind:
            self.attempt(NO_FAULT, self.store.counts)
        journal = self.store._writer.journal if self.store else None
        file, full = journal and journal._file, None
        if injected.kind == "full journal" and journal:
            full = journal._file = os.open("/dev/full", os.O_WRONLY)
            journal.is_in_place = lambda: True  # the device stands in for the file
        self.injector.arm(*injected)
        try:
            return self.loop.run(work()), None
        except DiskError as error:
            return None, error
        finally:
            self.injector.kind = ""
            if full is not None:
                journal._file = file
                del journal.is_in_place
                os.close(full)
            if self.store and not injected.kind:
                self.expected.catches_up(read_state(self.injector.directory))

    def open(self, injected=NO_FAULT):
        """Start: changes in the journal only are now in the database, and nothing else has changed."""
        store, error = self.attempt(
            injected, lambda: Store.open(self.injector.directory, connect=self.injector.connect)
        )
        assert error is None or injected.fills
        self.store = store
        if error is not None or self.injector.copy is not None:
            self.move(self.injector.copy or self.injector.directory)
            return
        assert store.epoch > self.epoch
        assert self.uuid in {None, store.uuid}
        self.epoch, self.failing = store.epoch, False
        self.expected.start(read_state(self.injector.directory))

    def move(self, directory):
        """Kill the process, and start another one with the files that it left."""
        self.close("store")
        self.injector.directory = directory
        self.open()

    def close(self, name):
        store = getattr(self, name)
        setattr(self, name, None)
        if store is not None:
            self.loop.run(store.aclose())

    def size(self):
        return (self.injector.directory / "journal.jsonl").stat().st_size

    def change(self, injected, work, before, after):
        """Change one task in one transaction with a fault injected; return the result or the error."""
        injected = injected if injected.fills else injected._replace(nth=1)
        reserve, row = self.store._writer.ballast.exists(), self.expected.tasks[before.key]
        behind = bool(self.expected.pending)
        size = self.size()
        done, error = self.attempt(injected, work)
        if error is not None:
            self.fails(injected, row, after, reserve=reserve, journaled=self.size() > size)
        elif done not in {"clash", "stale", None}:
            self.expected.becomes(after)
            assert behind or (self.size() > size) == is_journaled(before, after)
            if self.injector.copy and not self.injector.committed:
                self.expected.loses(row, after, torn=injected.kind == "crash torn journal")
        if self.injector.copy:
            self.move(self.injector.copy)
        return done if error is None else error

    def fails(self, injected, before, after, *, reserve, journaled):
        """Check a failed change: the database is unchanged, and the next transaction applies the journal."""
        if not self.failing:
            assert injected.fills
            once = injected.nth == 1 and injected.kind not in {"full journal", "full ever more"}
            assert not (once and reserve) or after.state is SUBMITTING, "the ballast exists for this"
        self.failing = True
        if journaled:
            self.expected.add_line(after)
            self.expected.pending[after.key] = (as_journaled(after), after.state is not SUBMITTING)
            self.given_up |= {after.key} if after.state is SUBMITTING else set()
            last = read_lines(self.injector.directory)[-1]
            if after.state is SUBMITTING and (last["t"], last["ref"]) == ("settle", after.ref):
                self.expected.withdraw(before)
                self.expected.pending[after.key] = (before, True)

    # the manifest

    @precondition(lambda self: not self.failing)
    @rule(numbers=NUMBERS, salt=st.integers(0, 2), injected=INJECTED_FAULTS)
    def the_manifest_changes(self, numbers, salt, injected):
        self.add_manifest(numbers, salt, injected)

    def add_manifest(self, numbers, salt, injected):
        self.manifest, digest = (numbers, salt), f"{numbers} {salt}"
        drafts = additions(numbers, salt)
        _, error = self.attempt(injected, lambda: self.store.add(iter(drafts), digest, self.now))
        self.planned = error is None and self.injector.copy is None
        if self.planned:
            if digest != self.digest:
                self.expected.plan(drafts, read_state(self.injector.directory))
            self.digest = digest
            return
        self.failing = error is not None
        if self.injector.copy:
            self.move(self.injector.copy)
        seen = read_state(self.injector.directory)
        self.expected.half_plan(drafts, seen)
        self.digest = seen.digest

    # buying

    @precondition(lambda self: not self.failing)
    @rule(
        provider=st.sampled_from(PROVIDERS),
        free_slots=st.sampled_from([0, 1, 9, 9]),
        cap=st.sampled_from([None, None, 4.0, 12.0]),
        count=st.integers(1, 3),
        injected=INJECTED_FAULTS,
    )
    def the_next_are_bought(self, provider, free_slots, cap, count, injected):
        if not self.planned:  # a run never buys before it has read its manifest
            self.add_manifest(*self.manifest, NO_FAULT)
        for left in reversed(range(count)):
            if not self.failing:
                self.buy_next(provider, free_slots, cap, NO_FAULT if left else injected)

    def buy_next(self, provider, free_slots, cap, injected):
        due = self.expected.due(provider, QUEUED, self.now) if free_slots else []
        if not self.store._writer.ballast.exists():
            _, error = self.attempt(NO_FAULT, lambda: self.buy(self.store, provider, free_slots, cap))
            assert error is not None
        elif not due or self.exceeds_cap(due[0], cap):
            assert self.loop.run(self.buy(self.store, provider, free_slots, cap)) == ("too dear" if due else None)
        else:
            after = self.claimed(due[0])
            done = self.change(injected, lambda: self.buy(self.store, provider, free_slots, cap), due[0], after)
            assert done == after or isinstance(done, DiskError)

    def buy(self, store, provider, free_slots, cap):
        return store.claim_queued(provider, self.now, free_slots, self.claimed, cap=cap)

    def claimed(self, task):
        return advance(task, Claimed(Moment("boot", self.now), self.now), self.now, self.policy)

    def exceeds_cap(self, task, cap):
        spent = sum(each.spent for each in self.expected.tasks.values())
        return cap is not None and (task.cost is None or round(spent + task.cost, 6) > cap)

    # events of tasks

    def free(self, *states):
        """Return tasks of these states, without those that are in the journal only."""
        tasks = [
            task
            for key, task in self.expected.tasks.items()
            if task.state in states and key not in self.expected.pending
        ]
        return sorted(tasks, key=lambda task: task.key)

    @among(SUBMITTING)
    @rule(picks=PICKS, wait=WAIT, injected=INJECTED_FAULTS)
    def sends_are_settled(self, picks, wait, injected):
        self.some_happen((SUBMITTING,), picks, wait, injected)

    @among(IN_DOUBT, HELD)
    @rule(picks=PICKS, wait=WAIT, injected=INJECTED_FAULTS)
    def doubts_are_settled(self, picks, wait, injected):
        self.some_happen((IN_DOUBT, HELD), picks, wait, injected)

    @among(RUNNING, READY)
    @rule(picks=PICKS, wait=WAIT, injected=INJECTED_FAULTS)
    def what_is_paid_goes_on(self, picks, wait, injected):
        self.some_happen((RUNNING, READY), picks, wait, injected)

    @among(State.DONE, State.FAILED, State.STRANDED)
    @rule(picks=PICKS, wait=WAIT, injected=INJECTED_FAULTS)
    def the_user_retries(self, picks, wait, injected):
        self.some_happen((State.DONE, State.FAILED, State.STRANDED), picks, wait, injected)

    @precondition(lambda self: len(self.free(QUEUED)) > 5)
    @rule(pick=PICK, injected=INJECTED_FAULTS)
    def the_user_adopts_an_id(self, pick, injected):
        self.some_happen((QUEUED,), [(pick, 0)], 1.0, injected)

    def some_happen(self, states, picks, wait, injected):
        """Apply some events one after another; the fault is injected into the last."""
        for left, (pick, which) in reversed([*enumerate(reversed(picks))]):
            if tasks := self.free(*states):
                self.something_happens(tasks[pick % len(tasks)], which, wait, NO_FAULT if left else injected)

    def something_happens(self, task, which, wait, injected):
        self.now += wait
        events = self.events(task)
        event = events[which % len(events)]
        if isinstance(event, Saved):
            if not all(self.record(task.key, output) for output in event.outputs):
                return
            task = self.expected.tasks[task.key]
        before = task if task.state is READY else replace(task, outputs=())
        after = advance(before, event, self.now, self.policy)
        clash = after.remote_id is not None and after.remote_id in self.expected.taken(task)
        done = self.change(injected, lambda: self.store.settle(before, after), before, after)
        assert done == ("clash" if clash else "done") or isinstance(done, DiskError)

    def events(self, task):
        """Return the events that may happen to a task next; ids are new or belong to another task."""
        ids = [self.fresh(), *sorted(self.expected.taken(task))[:2] * 2]
        by_user = [Resolved("absent", "ann"), Resolved("abandon", "ann")]
        match task.state:
            case State.QUEUED:
                return [Resolved("adopt", "ann", self.fresh())]
            case State.SUBMITTING:
                failures = [RetryableFailure(kind, BUSY) for kind in ("trouble", "throttled", "window", "unsent")]
                doubts = [*[Interrupted("no answer")] * 5, Interrupted("no id", hopeless=True)]
                rejections = [AccountBlocked("credit", BUSY), Rejected(BUSY), Rejected(BUSY, maybe_taken=True)]
                return [*map(Accepted, ids), *doubts, *failures, *rejections]
            case State.IN_DOUBT:
                missing = [Missing(quiet=False), Missing(quiet=True), Missing(quiet=True, provable=False)]
                return [
                    *map(Found, ids),
                    *missing,
                    *missing,
                    RetryableFailure("trouble", BUSY),
                    AccountBlocked("account", BUSY),
                ]
            case State.HELD:
                return [*(Resolved("adopt", "ann", remote_id) for remote_id in ids), *by_user]
            case State.RUNNING:
                links = [Output(number, f"https://a.example/{self.fresh()}") for number in range(1, 2 + task.id % 2)]
                failures = [
                    RetryableFailure("trouble", BUSY),
                    RetryableFailure("absent", BUSY),
                    AccountBlocked("account", BUSY),
                ]
                ends = [Finished(tuple(links)), Finished(tuple(links)), Rejected(BUSY), Rejected(BUSY, billed=False)]
                others = [Resolved("adopt", "ann", remote_id) for remote_id in ids[:2]]
                doubted = [*others, *by_user] if task.reason.startswith(ADOPTED_BY_USER) else []
                return [*ends, Pending(), Pending(settling=True), *failures, *doubted]
            case State.READY:
                files = tuple(self.file(task, output) for output in task.outputs)
                return [Saved(files), Saved(files), LinkExpired(BUSY), RetryableFailure("trouble", BUSY)]
            case State.FAILED if task.remote_id is not None and task.error.reason != "abandoned":
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
        """Record a file; return whether the record is on disk."""
        _, error = self.attempt(NO_FAULT, lambda: self.store.record_file(self.expected.tasks[key], output))
        assert error is None or self.failing
        if error is None:
            self.expected.records(key, output)
        return error is None

    # claims of stages

    @precondition(lambda self: not self.failing)
    @rule(
        provider=st.sampled_from(PROVIDERS),
        state=st.sampled_from([IN_DOUBT, RUNNING, READY]),
        limit=st.integers(1, 3),
        group=st.booleans(),
    )
    def due_tasks_are_claimed(self, provider, state, limit, group):
        excluded = {task.id for task in self.expected.tasks.values() if task.id % 5 == 4}
        due = [task for task in self.expected.due(provider, state, self.now) if task.id not in excluded][:limit]
        if group:
            claim = self.store.claim_group(
                provider, state, self.now, limit, excluded, ["image"], lambda _: self.now + 60
            )
        else:
            claim = self.store.claim(provider, state, self.now, limit, excluded, lambda _: self.now + 60)
        claimed = self.loop.run(claim)
        assert [task.key for task in claimed] == [task.key for task in due]
        for task in due:
            self.expected.tasks[task.key] = replace(task, due_at=self.now + 60)
        if state is READY and not group:
            assert claimed == [self.expected.tasks[task.key] for task in due]
            for task in due[:1]:
                self.record(task.key, self.file(task, task.outputs[0]))

    # restarts

    @rule(injected=INJECTED_FAULTS)
    def it_ends_and_begins_again(self, injected):
        self.close("store")
        self.open(injected)
        self.loop.run(self.store.wake(self.now))
        self.expected.wake(self.now)

    @rule(lost=LOST)
    def it_is_killed(self, lost):
        """Kill the process by a signal; or the user restores only some of its files."""
        copy = self.injector.copy_files(*lost)
        if not lost:
            self.move(copy)
            return
        keys = None if "state.db" in lost else keys_in(copy)
        self.close("store")
        self.injector.directory, self.planned = copy, False
        self.open_incomplete(copy, keys)
        self.digest = read_state(copy).digest

    def open_incomplete(self, copy, keys):
        try:
            self.store = self.loop.run(Store.open(copy, connect=self.injector.connect))
        except StateError:
            drafts = additions(*self.manifest)
            rebuild(copy, iter(drafts), self.now)
            self.expected.rebuilt(drafts, read_state(copy))
            self.open()
        else:
            assert self.expected.journaled.keys() <= (keys or set()), "a database without the rows of bought tasks"
            self.expected.reverted(read_state(copy))
            self.epoch, self.failing = self.store.epoch, False

    @precondition(lambda self: not self.failing)
    @rule(pick=PICK, which=PICK)
    def a_second_writer_takes_over(self, pick, which):
        self.checkpoint()
        self.old, self.store = self.store, None
        self.open()
        if tasks := self.free(*set(State) - {QUEUED}):
            task = tasks[pick % len(tasks)]
            events = self.events(task)
            after = advance(task, events[which % len(events)], self.now, self.policy)
            assert self.loop.run(self.old.settle(task, after)) == "stale"
        if not self.old._writer.exhausted:
            for provider in PROVIDERS:
                assert self.loop.run(self.buy(self.old, provider, 9, None)) is None
        self.close("old")

    def checkpoint(self):
        """Move the write-ahead log into the database, as SQLite does now and then."""
        checkpoint = "pragma wal_checkpoint"
        self.loop.run(self.store._writer.set_up(lambda connection: connection.execute(checkpoint).fetchall() and None))

    # checks after every step

    @invariant()
    def disk_matches_the_model(self):
        seen, lines = read_state(self.injector.directory), read_lines(self.injector.directory)
        expected = self.expected.rows()
        assert {key: {name: row[name] for name in expected[key]} for key, row in seen.rows.items()} == expected
        assert seen.counts == Counter(task.state for task in seen.tasks.values())
        assert seen.spent == pytest.approx(sum(task.spent for task in seen.tasks.values()))
        assert find_double_purchase(lines, self.given_up) is None
        self.check_ids(seen, {line["remote_id"] for line in lines if line["t"] == "id"})
        if not self.failing:
            self.check_queries(seen)

    def check_ids(self, seen, in_journal):
        """Check that ids, those of earlier purchases too, are unique and never vanish."""
        live = [(task.provider, task.remote_id) for task in seen.tasks.values() if task.remote_id is not None]
        assert len(set(live)) == len(live)
        assert not seen.former & set(live)
        self.ids |= {*live, *seen.former}
        assert self.ids <= seen.former | set(live)
        assert {remote_id for _, remote_id in self.ids} <= in_journal

    def check_queries(self, seen):
        assert self.loop.run(self.store.counts()) == seen.counts
        for provider in PROVIDERS:
            ids = [remote_id for name, remote_id in self.ids if name == provider]
            assert self.loop.run(self.store.claimed_ids(provider, ids)) == set(ids)


def test_a_few_random_lives_of_a_job():
    """The fast sample of TestJob, which plays many more."""
    few = settings(max_examples=3, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Job, settings=few)


TestJob = pytest.mark.slow(Job.TestCase)
TestJob.settings = settings(
    max_examples=40 * TIMES, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
