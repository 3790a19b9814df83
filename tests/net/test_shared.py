"""Several processes of one account in virtual time, over the real file: together they are one."""

from __future__ import annotations

import fcntl
import os
from itertools import pairwise

import pytest

from runner.net.bucket import Bucket
from runner.net.shared import SharedBucket
from runner.net.traffic import Slot
from runner.store.budget import Budget
from tests.net.pacing import FAST, SLOW, Client, Server, World, violations

NEVER = float("inf")


class Account:
    """One account's directory, and the processes that come and go there."""

    def __init__(self, directory, **manners):
        self.world = World(**manners)
        self.directory, self.notices, self.boot = directory, [], "boot"

    def process(self, count, seconds=1.0, *, begins=0.0, dies=NEVER, hands=8, **wish):
        """A client that is born and killed in time; what it has under way when it dies is never heard of again."""
        client = Client(None, hands, begins, dies)
        client.bucket = Newborn(self, client, Bucket(count, seconds, **wish))
        client.kill = client.bucket.kill if dies < NEVER else None
        return client

    def join(self, bucket, alive=lambda: True):
        """A shared bucket, and the budget below it."""
        budget = Budget(self.directory, "submit", self.boot)
        later = lambda seconds, call: self.world.later(seconds, lambda: alive() and call())  # noqa: E731
        return SharedBucket(bucket, budget, self.world.clock, later, self.notices.append), budget


class Newborn:
    """Joins the account when it is first asked."""

    def __init__(self, account, client, bucket):
        self._account, self._client, self._bucket = account, client, bucket
        self._shared = self._budget = None

    def __getattr__(self, name):
        if self._shared is None:
            self._shared, self._budget = self._account.join(self._bucket, self._alive)
        return getattr(self._shared, name)

    def _alive(self):
        return self._account.world.now < self._client.dies

    def kill(self):
        """The kernel closes what a dead process had open; nobody says goodbye."""
        if self._budget is not None:
            self._budget.close()


@pytest.mark.parametrize("back", [FAST, SLOW], ids=["fast", "slow"])
@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize(("count", "total"), [(5, 400), (50, 2000), (500, 2500)])
def test_together_they_keep_to_the_limit_and_use_it(tmp_path, count, total, processes, back):
    account = Account(tmp_path, seed=processes, back=back)
    clients = [account.process(count, hands=max(8, count)) for _ in range(processes)]
    server = account.world.run(clients, total)
    assert violations(server.arrivals, count) == 0
    assert server.use(count) >= 0.96
    assert min(client.accepted for client in clients) >= 0.7 * total / processes, "each has its share"
    assert account.notices == []


@pytest.mark.parametrize("seed", range(6))
def test_they_come_and_are_killed_at_any_moment(tmp_path, seed):
    """One dies in the middle of what it does, the next sits down on its seat; nothing is lost but its own work."""
    account = Account(tmp_path, seed=seed, stalls=0.05)
    lives = [(0, 13), (2, 20.03 + seed / 100), (20, NEVER), (20.5, 31.7), (30, 40), (31.71, NEVER)]
    clients = [account.process(10, begins=begins, dies=dies) for begins, dies in lives]
    server = account.world.run(clients, 1500)
    assert violations(server.arrivals, 10) == 0
    assert server.use(10) >= 0.95


def test_what_a_dead_process_had_not_sent_comes_back(tmp_path):
    account = Account(tmp_path)
    dead, budget = account.join(Bucket(2, 60.0))
    assert isinstance(dead.grant(0.0), Slot)
    assert isinstance(dead.grant(31.0), Slot)
    heir, _ = account.join(Bucket(2, 60.0))
    assert isinstance(heir.grant(62.0), float)
    budget.close()
    assert isinstance(heir.grant(63.0), Slot)


def test_what_a_dead_process_had_sent_still_counts(tmp_path):
    account = Account(tmp_path)
    dead, budget = account.join(Bucket(2, 60.0))
    for account.world.now in (0.0, 31.0):
        dead.sent(dead.grant(account.world.now), account.world.now)
    budget.close()
    heir, _ = account.join(Bucket(2, 60.0))
    assert heir.grant(32.0) == pytest.approx(60.0, abs=2.0)


def test_who_leaves_gives_back_what_was_not_sent(tmp_path):
    account = Account(tmp_path)
    one, _ = account.join(Bucket(2, 60.0))
    other, _ = account.join(Bucket(2, 60.0))
    one.grant(0.0)
    one.grant(31.0)
    assert other.others == 1
    one.close()
    one.close()
    assert isinstance(other.grant(62.0), Slot)
    assert other.others == 0


def test_a_refusal_of_one_slows_all_and_what_holds_is_learned_once(tmp_path):
    account = Account(tmp_path, server=Server(10))
    clients = [account.process(50) for _ in range(3)]
    server = account.world.run(clients, 600)
    assert len(server.refused) <= 30
    assert account.world.now <= 1.25 * 59.9


def test_after_a_restart_of_the_machine_only_what_was_learned_is_left(tmp_path):
    account = Account(tmp_path, server=Server(10))
    account.world.run([account.process(50)], 200)
    reborn = Account(tmp_path, server=Server(10))
    reborn.boot = "another boot"
    server = reborn.world.run([reborn.process(50)], 200)
    assert len(account.world.server.refused) > 0
    assert server.refused == []
    assert server.arrivals[0] < 0.1


def test_the_next_run_goes_on_where_the_last_one_was(tmp_path):
    """Five seconds after the end of a run that had used a minute up, the next one has to wait."""
    account = Account(tmp_path)
    first, _ = account.join(Bucket(10, 60.0))
    for _ in range(10):
        while not isinstance(slot := first.grant(account.world.now), Slot):
            account.world.now = slot
        first.sent(slot, account.world.now)
        first.answered(slot, 0.01)
    first.close()
    second, _ = account.join(Bucket(10, 60.0))
    assert second.grant(account.world.now + 5.0) >= 60.0


@pytest.fixture
def stopped(tmp_path):
    """A process that was stopped in the middle of its turn, until the returned function is called."""
    file = os.open(tmp_path / "submit.budget", os.O_RDWR | os.O_CREAT)
    fcntl.flock(file, fcntl.LOCK_EX)
    released = []

    def go_on():
        if not released:
            released.append(os.close(file))

    yield go_on
    go_on()


def test_who_gets_no_turn_asks_again_and_goes_alone_at_last(tmp_path, stopped):
    account = Account(tmp_path, back=(0.001, 0.002))
    client = account.process(10)
    server = account.world.run([client], 200)
    assert violations(server.arrivals, 10) == 0
    assert 2.0 <= server.arrivals[0] <= 2.1
    assert server.use(10) >= 0.96
    assert len(account.notices) == 1
    assert "another process holds it" in account.notices[0]


def test_who_was_alone_tells_what_it_sent_when_it_comes_back(tmp_path, stopped):
    account = Account(tmp_path)
    account.world.later(30.0, stopped)
    account.world.run([account.process(10)], 10**6, until=29.99)
    account.world.now = 30.0
    clients = [account.process(10, begins=30.0) for _ in range(2)]
    arrivals = account.world.run(clients, 600).arrivals
    assert violations(arrivals, 10) <= 4, "until its next try the others know nothing of it"
    assert violations([at for at in arrivals if at > 30.3], 10) == 0


def test_a_busy_moment_costs_a_millisecond_and_loses_nothing(tmp_path):
    account = Account(tmp_path)
    bucket, _ = account.join(Bucket(10))
    file = os.open(tmp_path / "submit.budget", os.O_RDWR)
    slot = bucket.grant(0.0)
    fcntl.flock(file, fcntl.LOCK_EX)
    bucket.sent(slot, 0.0)
    assert bucket.grant(0.2) == pytest.approx(0.201)
    os.close(file)
    account.world.run([], 1, until=0.01)
    heir, _ = account.join(Bucket(10))
    assert list(heir._bucket._traffic._sends) == [0.0]


def test_a_disk_that_fails_is_told_once_and_stops_nobody(tmp_path, monkeypatch):
    account = Account(tmp_path)
    client = account.process(10)
    client.bucket.grant(0.0)

    def broken(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", broken)
    server = account.world.run([client], 100)
    assert violations(server.arrivals, 10) == 0
    assert len(account.notices) == 1
    assert "No space left" in account.notices[0]
    monkeypatch.undo()
    back = account.world.now + 0.3
    account.world.run([account.process(10, begins=back)], 250)
    assert violations([at for at in server.arrivals if at > back], 10) == 0


def test_sends_are_told_before_the_bytes_leave(tmp_path):
    """Killed right after, a process has told all that it sent."""
    account = Account(tmp_path)
    bucket, budget = account.join(Bucket(10))
    slot = bucket.grant(0.0)
    bucket.sent(slot, 0.01)
    budget.close()
    heir, _ = account.join(Bucket(10))
    assert list(heir._bucket._traffic._sends) == [0.01]


def test_the_rate_does_not_jump_when_another_joins(tmp_path):
    account = Account(tmp_path)
    clients = [account.process(20), account.process(20, begins=10.0), account.process(20, begins=20.0)]
    arrivals = account.world.run(clients, 600).arrivals
    assert violations(arrivals, 20) == 0
    assert max(later - sooner for sooner, later in pairwise(sorted(arrivals))) < 0.2
