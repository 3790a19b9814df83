"""Several processes of one account in virtual time, with the real file: together they keep to one limit."""

from __future__ import annotations

import fcntl
import os
from itertools import pairwise

import pytest

from runner.ratelimit.shared import SharedSlidingWindow
from runner.ratelimit.window import SlidingWindow, Slot
from runner.store.rate_state import SharedRateState
from tests.ratelimit.virtual_time import FAST, SLOW, Client, Server, Simulation, violations

NEVER = float("inf")


class Account:
    """Directory of one account, and its processes."""

    def __init__(self, directory, **options):
        self.simulation = Simulation(**options)
        self.directory, self.warnings, self.boot = directory, [], "boot"

    def process(self, count, seconds=1.0, *, begins=0.0, dies=NEVER, concurrency=8, **options):
        """Return a client with a lifetime; its requests in flight at its death have no further effect."""
        client = Client(None, concurrency, begins, dies)
        client.window = LateJoin(self, client, SlidingWindow(count, seconds, **options))
        client.kill = client.window.kill if dies < NEVER else None
        return client

    def join(self, window, alive=lambda: True):
        """Return a shared sliding window and the shared state below it."""
        state = SharedRateState(self.directory, "submit", self.boot)
        later = lambda seconds, call: self.simulation.later(seconds, lambda: alive() and call())  # noqa: E731
        return SharedSlidingWindow(window, state, self.simulation.clock, later, self.warnings.append), state


class LateJoin:
    """Rate limit that joins the account on first use."""

    def __init__(self, account, client, window):
        self._account, self._client, self._window = account, client, window
        self._shared = self._state = None

    def __getattr__(self, name):
        if self._shared is None:
            self._shared, self._state = self._account.join(self._window, self._alive)
        return getattr(self._shared, name)

    def _alive(self):
        return self._account.simulation.now < self._client.dies

    def kill(self):
        """Close the files of the process as the kernel does, without leaving the account."""
        if self._state is not None:
            self._state.close()


@pytest.mark.slow
@pytest.mark.parametrize("back", [FAST, SLOW], ids=["fast", "slow"])
@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize(("count", "total"), [(5, 400), (50, 2000), (500, 2500)])
def test_processes_together_keep_to_the_limit_and_use_it(tmp_path, count, total, processes, back):
    account = Account(tmp_path, seed=processes, back=back)
    clients = [account.process(count, concurrency=max(8, count)) for _ in range(processes)]
    server = account.simulation.run(clients, total)
    assert violations(server.arrivals, count) == 0
    assert server.use(count) >= 0.96
    assert min(client.accepted for client in clients) >= 0.7 * total / processes, "each process has its share"
    assert account.warnings == []


@pytest.mark.parametrize("seed", range(6))
def test_processes_may_start_and_die_at_any_time(tmp_path, seed):
    """A process dies at any moment and the next one takes over its process slot; no other request is lost."""
    account = Account(tmp_path, seed=seed, stalls=0.05)
    lives = [(0, 13), (2, 20.03 + seed / 100), (20, NEVER), (20.5, 31.7), (30, 40), (31.71, NEVER)]
    clients = [account.process(10, begins=begins, dies=dies) for begins, dies in lives]
    server = account.simulation.run(clients, 1500)
    assert violations(server.arrivals, 10) == 0
    assert server.use(10) >= 0.95


def test_unused_slots_of_a_dead_process_are_released(tmp_path):
    """Two granted slots of a killed process do not count any more once its lock is free."""
    account = Account(tmp_path)
    dead, state = account.join(SlidingWindow(2, 60.0))
    assert isinstance(dead.grant(0.0), Slot)
    assert isinstance(dead.grant(31.0), Slot)
    heir, _ = account.join(SlidingWindow(2, 60.0))
    assert isinstance(heir.grant(62.0), float)
    state.close()
    assert isinstance(heir.grant(63.0), Slot)


def test_requests_of_a_dead_process_still_count(tmp_path):
    account = Account(tmp_path)
    dead, state = account.join(SlidingWindow(2, 60.0))
    for account.simulation.now in (0.0, 31.0):
        dead.sent(dead.grant(account.simulation.now), account.simulation.now)
    state.close()
    heir, _ = account.join(SlidingWindow(2, 60.0))
    assert heir.grant(32.0) == pytest.approx(60.0, abs=2.0)


def test_closing_releases_unused_slots(tmp_path):
    account = Account(tmp_path)
    one, _ = account.join(SlidingWindow(2, 60.0))
    other, _ = account.join(SlidingWindow(2, 60.0))
    one.grant(0.0)
    one.grant(31.0)
    assert other.other_processes == 1
    one.close()
    one.close()
    assert isinstance(other.grant(62.0), Slot)
    assert other.other_processes == 0


def test_one_refusal_slows_all_processes(tmp_path):
    """A refusal pauses every process, and the limit is learned once for all of them."""
    account = Account(tmp_path, server=Server(10))
    clients = [account.process(50) for _ in range(3)]
    server = account.simulation.run(clients, 600)
    assert len(server.refused) <= 30
    assert account.simulation.now <= 1.25 * 59.9


def test_after_a_reboot_only_the_learned_rate_remains(tmp_path):
    account = Account(tmp_path, server=Server(10))
    account.simulation.run([account.process(50)], 200)
    rebooted = Account(tmp_path, server=Server(10))
    rebooted.boot = "another boot"
    server = rebooted.simulation.run([rebooted.process(50)], 200)
    assert len(account.simulation.server.refused) > 0
    assert server.refused == []
    assert server.arrivals[0] < 0.1


def test_next_run_continues_with_the_stored_state(tmp_path):
    """A run that used up the limit of a minute makes the next run wait."""
    account = Account(tmp_path)
    first, _ = account.join(SlidingWindow(10, 60.0))
    for _ in range(10):
        while not isinstance(slot := first.grant(account.simulation.now), Slot):
            account.simulation.now = slot
        first.sent(slot, account.simulation.now)
        first.answered(slot, 0.01)
    first.close()
    second, _ = account.join(SlidingWindow(10, 60.0))
    assert second.grant(account.simulation.now + 5.0) >= 60.0


@pytest.fixture
def stopped(tmp_path):
    """Hold the lock like a stopped process, until the returned function is called."""
    file = os.open(tmp_path / "submit.budget", os.O_RDWR | os.O_CREAT)
    fcntl.flock(file, fcntl.LOCK_EX)
    released = []

    def resume():
        if not released:
            released.append(os.close(file))

    yield resume
    resume()


def test_process_without_the_lock_continues_alone(tmp_path, stopped):
    """After two seconds without the lock, a process continues alone and warns once."""
    account = Account(tmp_path, back=(0.001, 0.002))
    client = account.process(10)
    server = account.simulation.run([client], 200)
    assert violations(server.arrivals, 10) == 0
    assert 2.0 <= server.arrivals[0] <= 2.1
    assert server.use(10) >= 0.96
    assert len(account.warnings) == 1
    assert "another process holds it" in account.warnings[0]


def test_process_that_was_alone_reports_its_requests(tmp_path, stopped):
    account = Account(tmp_path)
    account.simulation.later(30.0, stopped)
    account.simulation.run([account.process(10)], 10**6, until=29.99)
    account.simulation.now = 30.0
    clients = [account.process(10, begins=30.0) for _ in range(2)]
    arrivals = account.simulation.run(clients, 600).arrivals
    assert violations(arrivals, 10) <= 4, "the others learn of its requests with its next attempt"
    assert violations([at for at in arrivals if at > 30.3], 10) == 0


def test_held_lock_delays_a_grant_by_a_millisecond(tmp_path):
    """A change that could not be stored is stored later."""
    account = Account(tmp_path)
    window, _ = account.join(SlidingWindow(10))
    file = os.open(tmp_path / "submit.budget", os.O_RDWR)
    slot = window.grant(0.0)
    fcntl.flock(file, fcntl.LOCK_EX)
    window.sent(slot, 0.0)
    assert window.grant(0.2) == pytest.approx(0.201)
    os.close(file)
    account.simulation.run([], 1, until=0.01)
    heir, _ = account.join(SlidingWindow(10))
    assert list(heir._window._requests._send_times) == [0.0]


def test_disk_error_is_reported_once_and_stops_no_process(tmp_path, monkeypatch):
    account = Account(tmp_path)
    client = account.process(10)
    client.window.grant(0.0)

    def broken(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", broken)
    server = account.simulation.run([client], 100)
    assert violations(server.arrivals, 10) == 0
    assert len(account.warnings) == 1
    assert "No space left" in account.warnings[0]
    monkeypatch.undo()
    restored_at = account.simulation.now + 0.3
    account.simulation.run([account.process(10, begins=restored_at)], 250)
    assert violations([at for at in server.arrivals if at > restored_at], 10) == 0


def test_sends_are_stored_before_the_bytes_leave(tmp_path):
    """A process that is killed right after sending has stored all that it sent."""
    account = Account(tmp_path)
    window, state = account.join(SlidingWindow(10))
    slot = window.grant(0.0)
    window.sent(slot, 0.01)
    state.close()
    heir, _ = account.join(SlidingWindow(10))
    assert list(heir._window._requests._send_times) == [0.01]


def test_rate_does_not_jump_when_a_process_joins(tmp_path):
    account = Account(tmp_path)
    clients = [account.process(20), account.process(20, begins=10.0), account.process(20, begins=20.0)]
    arrivals = account.simulation.run(clients, 600).arrivals
    assert violations(arrivals, 20) == 0
    assert max(later - sooner for sooner, later in pairwise(sorted(arrivals))) < 0.2
