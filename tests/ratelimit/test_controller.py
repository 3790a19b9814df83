"""Learning of a server's rate limit from its refusals, in virtual time."""

from __future__ import annotations

import itertools
import math

import pytest

from runner.ratelimit.window import SlidingWindow
from tests.ratelimit.virtual_time import FAST, Client, Server, Simulation

SLOW = (0.1, 0.4)


def learn(window, total, *, most, seconds=1.0, counts_refused=False, **options):
    """Return the server after `total` accepted requests, and the duration divided by the ideal one."""
    simulation = Simulation(server=Server(most, seconds, counts_refused), **options)
    server = simulation.run([Client(window, concurrency=8)], total)
    return server, simulation.now / ((total - 1) * seconds / most)


@pytest.mark.parametrize("counts_refused", [False, True])
@pytest.mark.parametrize("back", [FAST, SLOW], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_rate_adapts_to_a_lower_server_limit(back, counts_refused, seed):
    """The manifest allows 50 requests per second, the server ten."""
    server, ratio = learn(SlidingWindow(50), 400, most=10, back=back, counts_refused=counts_refused, seed=seed)
    assert len(server.refused) <= 0.05 * 400
    assert ratio <= 1.25


def test_probing_costs_less_in_a_long_run():
    server, ratio = learn(SlidingWindow(50), 5000, most=10)
    assert len(server.refused) <= 15
    assert ratio <= 1.06


@pytest.mark.parametrize("seed", range(3))
def test_limit_per_minute_taken_for_one_per_second(seed):
    server, ratio = learn(SlidingWindow(10), 300, most=10, seconds=60.0, seed=seed)
    assert len(server.refused) <= 0.05 * 300
    assert ratio <= 1.25


def test_rate_rises_to_the_first_refusal_and_stays_below():
    window = SlidingWindow(2, ceiling=math.inf)
    server, ratio = learn(window, 400, most=10)
    assert ratio <= 1.25
    assert len(server.refused) <= 3
    assert window.rate(10**6) == pytest.approx(10, abs=0.5)


def test_rate_rises_by_constant_steps():
    """The rate rises by half of the first rate with each window: 2, 3, 4, … requests per second."""
    server = Simulation().run([Client(SlidingWindow(2, ceiling=math.inf))], 200)
    in_second = [sum(second <= at < second + 1 for at in server.arrivals) for second in range(12)]
    assert in_second[0] <= 3
    assert all(later - sooner <= 2 for sooner, later in itertools.pairwise(in_second))
    assert in_second[-1] >= 10


def test_rate_per_minute_rises_minute_by_minute():
    server, ratio = learn(SlidingWindow(10, 60.0, ceiling=math.inf), 400, most=30, seconds=60.0)
    assert len(server.refused) <= 2
    assert ratio <= 1.5
    assert sum(at < 60 for at in server.arrivals) <= 11, "the first minute is at the first rate"


def test_requests_below_the_rate_prove_nothing():
    """Two requests per second at a rate of ten must not raise the rate, even after an hour."""
    window, now = SlidingWindow(10, ceiling=math.inf), 0.0
    for _ in range(2000):
        slot = window.grant(now)
        window.sent(slot, now)
        window.answered(slot, 0.02)
        now += 0.5
    assert window.rate(now) == 10


def test_refusal_pauses_halves_and_recovers():
    window = SlidingWindow(10)
    window.throttled(100.0)
    assert window.grant(100.5) == pytest.approx(101.0)
    window.throttled(100.6)  # a request that was in flight is refused as well
    top = window.rate(200)
    assert window.rate(101.0) == pytest.approx(top / 2)
    rates = [window.rate(at) for at in (102.5, 103.5, 104.5, 107.5)]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(top / 2)
    assert rates[1] == pytest.approx(top / 2 + 1.0)
    assert rates[-1] == top


def test_refusals_in_a_row_lengthen_the_pause():
    window, now, pauses = SlidingWindow(10), 0.0, []
    for _ in range(8):
        now = max(now, window.grant(now) if isinstance(window.grant(now), float) else now)
        window.throttled(now)
        pauses.append(round(window.grant(now) - now))
        now += pauses[-1] + 0.01
    assert pauses == [1, 2, 4, 8, 16, 32, 32, 32]


def test_single_refusal_at_the_right_rate_costs_little():
    """The server accepts the configured rate, but refuses one request after the first hundred."""

    class OneRefusal(Server):
        def admits(self, now):
            if len(self.arrivals) == 100 and not self.refused:
                self.refused.append(now)
                return False
            return super().admits(now)

    window, simulation = SlidingWindow(10), Simulation(server=OneRefusal(10))
    simulation.run([Client(window)], 1000)
    assert len(simulation.server.refused) == 1
    assert window.rate(10**6) == 10
    assert simulation.now <= 1.06 * 99.9


def test_learned_rate_is_remembered():
    first = SlidingWindow(50)
    learn(first, 100, most=10)
    second = SlidingWindow(50)
    second.load(first.dump(), 0.0, earlier_boot=True)
    server, ratio = learn(second, 200, most=10)
    assert server.refused == []
    assert ratio <= 1.05


def test_probed_rate_does_not_limit_a_configured_rate():
    """A rate found by probing holds for the next run without a configured rate only."""
    probing = SlidingWindow(2, ceiling=math.inf)
    Simulation().run([Client(probing)], 100)
    configured, unconfigured = SlidingWindow(50), SlidingWindow(2, ceiling=math.inf)
    configured.load(probing.dump(), 0.0, earlier_boot=True)
    unconfigured.load(probing.dump(), 0.0, earlier_boot=True)
    assert configured.rate(0.0) == 50
    assert 5 < unconfigured.rate(0.0) < 20


def test_raised_limit_is_found():
    window = SlidingWindow(50)
    learn(window, 100, most=10)
    Simulation(server=Server(40)).run([Client(window)], 6000)
    assert window.rate(10**6) >= 30


def test_server_that_never_accepts_is_asked_rarely():
    """The requests never stop, but are at most 150 in an hour."""
    window, now, requests = SlidingWindow(5), 0.0, 0
    while now < 3600:
        granted = window.grant(now)
        if isinstance(granted, float):
            now = max(granted, now + 0.001)
            continue
        requests += 1
        window.sent(granted, now)
        window.throttled(now + 0.05, None, granted)
    assert 60 <= requests <= 150
