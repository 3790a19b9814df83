"""Finding out what the server allows, before a server that refuses the rest; in virtual time."""

from __future__ import annotations

import itertools
import math

import pytest

from runner.net.bucket import Bucket
from tests.net.pacing import FAST, Client, Server, World

SLOW = (0.1, 0.4)


def learned(bucket, total, *, most, seconds=1.0, counts_refused=False, **manners):
    """The server after so many were accepted, and how long that took in units of the ideal."""
    world = World(server=Server(most, seconds, counts_refused), **manners)
    server = world.run([Client(bucket, hands=8)], total)
    return server, world.now / ((total - 1) * seconds / most)


@pytest.mark.parametrize("counts_refused", [False, True])
@pytest.mark.parametrize("back", [FAST, SLOW], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_fifty_were_promised_and_ten_are_allowed(back, counts_refused, seed):
    server, ratio = learned(Bucket(50), 400, most=10, back=back, counts_refused=counts_refused, seed=seed)
    assert len(server.refused) <= 0.05 * 400
    assert ratio <= 1.25


def test_the_longer_it_runs_the_less_finding_out_costs():
    server, ratio = learned(Bucket(50), 5000, most=10)
    assert len(server.refused) <= 15
    assert ratio <= 1.06


@pytest.mark.parametrize("seed", range(3))
def test_a_limit_a_minute_that_was_taken_for_one_a_second(seed):
    server, ratio = learned(Bucket(10), 300, most=10, seconds=60.0, seed=seed)
    assert len(server.refused) <= 0.05 * 300
    assert ratio <= 1.25


def test_without_a_rate_it_climbs_to_the_first_refusal_and_stays_below():
    bucket = Bucket(2, ceiling=math.inf)
    server, ratio = learned(bucket, 400, most=10)
    assert ratio <= 1.25
    assert len(server.refused) <= 3
    assert bucket.rate(10**6) == pytest.approx(10, abs=0.5)


def test_it_climbs_by_as_much_with_every_window():
    """Half of the first rate with each window: 2, 3, 4, … a second."""
    server = World().run([Client(Bucket(2, ceiling=math.inf))], 200)
    in_second = [sum(second <= at < second + 1 for at in server.arrivals) for second in range(12)]
    assert in_second[0] <= 3
    assert all(later - sooner <= 2 for sooner, later in itertools.pairwise(in_second))
    assert in_second[-1] >= 10


def test_without_a_rate_minutes_are_climbed_in_minutes():
    server, ratio = learned(Bucket(10, 60.0, ceiling=math.inf), 400, most=30, seconds=60.0)
    assert len(server.refused) <= 2
    assert ratio <= 1.5
    assert sum(at < 60 for at in server.arrivals) <= 11, "the first minute is the cautious one"


def test_what_nobody_waited_for_proves_nothing():
    """Ten a second are allowed and two are wanted: an hour of that must not end in a burst at a rate never tried."""
    bucket, now = Bucket(10, ceiling=math.inf), 0.0
    for _ in range(2000):
        slot = bucket.grant(now)
        bucket.sent(slot, now)
        bucket.answered(slot, 0.02)
        now += 0.5
    assert bucket.rate(now) == 10


def test_a_refusal_pauses_halves_and_gives_back_with_each_window():
    bucket = Bucket(10)
    bucket.throttled(100.0)
    assert bucket.grant(100.5) == pytest.approx(101.0)
    bucket.throttled(100.6)  # what was in flight says the same
    top = bucket.rate(200)
    assert bucket.rate(101.0) == pytest.approx(top / 2)
    rates = [bucket.rate(at) for at in (102.5, 103.5, 104.5, 107.5)]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(top / 2)
    assert rates[1] == pytest.approx(top / 2 + 1.0)
    assert rates[-1] == top


def test_refusals_in_a_row_make_the_pause_longer_and_one_run_of_luck_ends_that():
    bucket, now, pauses = Bucket(10), 0.0, []
    for _ in range(8):
        now = max(now, bucket.grant(now) if isinstance(bucket.grant(now), float) else now)
        bucket.throttled(now)
        pauses.append(round(bucket.grant(now) - now))
        now += pauses[-1] + 0.01
    assert pauses == [1, 2, 4, 8, 16, 32, 32, 32]


def test_one_unlucky_refusal_at_the_right_rate_costs_little():
    """A server that takes as much as was promised, but one in its hundred came too early for it."""

    class Unlucky(Server):
        def admits(self, now):
            if len(self.arrivals) == 100 and not self.refused:
                self.refused.append(now)
                return False
            return super().admits(now)

    bucket, world = Bucket(10), World(server=Unlucky(10))
    world.run([Client(bucket)], 1000)
    assert len(world.server.refused) == 1
    assert bucket.rate(10**6) == 10
    assert world.now <= 1.06 * 99.9


def test_what_holds_is_remembered():
    first = Bucket(50)
    learned(first, 100, most=10)
    second = Bucket(50)
    second.load(first.dump(), 0.0, old=True)
    server, ratio = learned(second, 200, most=10)
    assert server.refused == []
    assert ratio <= 1.05


def test_a_rate_that_was_only_climbed_to_does_not_bind_what_a_person_gives():
    climber = Bucket(2, ceiling=math.inf)
    World().run([Client(climber)], 100)
    given, again = Bucket(50), Bucket(2, ceiling=math.inf)
    given.load(climber.dump(), 0.0, old=True)
    again.load(climber.dump(), 0.0, old=True)
    assert given.rate(0.0) == 50
    assert 5 < again.rate(0.0) < 20


def test_a_limit_that_was_raised_is_found_again():
    bucket = Bucket(50)
    learned(bucket, 100, most=10)
    World(server=Server(40)).run([Client(bucket)], 6000)
    assert bucket.rate(10**6) >= 30


def test_a_server_that_never_accepts_is_asked_rarely_but_for_ever():
    bucket, now, asked = Bucket(5), 0.0, 0
    while now < 3600:
        found = bucket.grant(now)
        if isinstance(found, float):
            now = max(found, now + 0.001)
            continue
        asked += 1
        bucket.sent(found, now)
        bucket.throttled(now + 0.05, None, found)
    assert 60 <= asked <= 150
