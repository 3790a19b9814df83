"""The limiter before a strict judge, in virtual time: more than q arrivals in any sliding window are refused."""

import heapq
import random
from bisect import bisect_right

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.net.bucket import Bucket
from runner.net.limiter import Limiter, Window
from runner.net.traffic import Slot


def simulate(count, seconds, total, *, seed=1, hands=8, stalls=0.0, hold=()):  # noqa: C901 - one loop of events, read from the top
    """Arrival times, and the time the last was sent; `hands` work at once, some stall before their bytes leave."""
    dice, bucket, now = random.Random(seed), Bucket(count, seconds), 0.0
    events = [(0.0, number, "free", None, 0.0) for number in range(hands)]
    heapq.heapify(events)
    number, asked, arrivals, waiting, wake = hands, 0, [], 0, None
    sends = []

    def push(at, what, slot=None, value=0.0):
        nonlocal number
        number += 1
        heapq.heappush(events, (at, number, what, slot, value))

    while events:
        now, _, what, slot, value = heapq.heappop(events)
        for begin, end in hold:  # the whole process stands still
            if begin <= now < end:
                push(end, what, slot, value)
                break
        else:
            if what == "free":
                waiting += 1
            elif what == "wake":
                wake = None
            elif what == "send":
                bucket.sent(slot, now)
                sends.append(now)
                there, back = dice.uniform(0.001, 0.020), dice.uniform(0.001, 0.003)
                arrivals.append(now + there)
                push(now + there + back, "answer", slot, there + back)
            elif what == "answer":
                bucket.answered(slot, value)
                waiting += 1
            while waiting and asked < total and wake is None:
                found = bucket.grant(now)
                if not isinstance(found, Slot):
                    wake = found
                    push(found, "wake")
                    break
                waiting, asked = waiting - 1, asked + 1
                late = dice.uniform(0.020, 0.200) if dice.random() < stalls else dice.uniform(0, 0.0005)
                push(now + late, "send", found)
    return sorted(arrivals), max(sends)


def violations(arrivals, count, seconds):
    """How many a strict server would refuse."""
    return sum(
        index - bisect_right(arrivals, at - seconds) + 1 > count for index, at in enumerate(arrivals) if index >= count
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("count", "total"), [(5, 600), (50, 4000), (500, 12000)])
def test_no_violation_at_97_per_cent_of_the_limit(count, total, seed):
    arrivals, last = simulate(count, 1.0, total, seed=seed, hands=max(8, count // 5))
    assert violations(arrivals, count, 1.0) == 0
    assert total / (last * count) >= 0.97


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("count", "total"), [(5, 600), (50, 3000), (500, 6000)])
def test_stalls_before_the_bytes_leave_cause_no_violation(count, total, seed):
    arrivals, last = simulate(count, 1.0, total, seed=seed, hands=max(8, count // 5), stalls=0.02)
    assert violations(arrivals, count, 1.0) == 0
    assert total / (last * count) >= 0.97


@pytest.mark.parametrize(("count", "seconds"), [(10, 60.0), (30, 60.0), (2.5, 1.0), (0.5, 1.0)])
def test_minutes_and_fractions(count, seconds):
    arrivals, last = simulate(count, seconds, 200, stalls=0.02)
    assert violations(arrivals, max(1, int(count)), seconds * max(1, int(count)) / count) == 0
    assert 200 / (last * count / seconds) >= 0.97


def test_no_burst_after_a_suspend():
    hold = [(3.0, 3.4), (7.0, 12.0), (15.0, 15.02)]
    arrivals, _ = simulate(50, 1.0, 1500, hold=hold)
    assert violations(arrivals, 50, 1.0) == 0
    assert sum(12.0 <= at < 12.05 for at in arrivals) <= 9, "more than 100 ms were caught up"


def test_a_throttled_bucket_pauses_halves_and_recovers():
    bucket = Bucket(10)
    bucket.throttled(100.0)
    assert bucket.grant(100.5) == pytest.approx(101.0)
    bucket.throttled(100.6)  # what was in flight says the same
    rates = [bucket.rate(at) for at in (101.0, 102.5, 103.5, 107.5, 200)]
    assert 0 < rates[0] <= 5.0
    assert rates == sorted(rates)
    assert rates[0] < rates[-1] <= 10.0


@pytest.mark.parametrize(("wait", "pause"), [(5.0, 5.0), (0.0, 0.5), (-3, 0.5), (1e20, 900.0)])
def test_what_the_server_asks_for_is_kept_within_bounds(wait, pause):
    bucket = Bucket(10)
    bucket.throttled(100.0, wait)
    assert bucket.grant(100.0) == pytest.approx(100.0 + pause)


def test_an_unused_latest_slot_is_given_back():
    bucket = Bucket(1, 60.0)
    slot = bucket.grant(0.0)
    assert bucket.grant(0.1) > 0.1
    bucket.release(slot)
    assert isinstance(bucket.grant(0.1), Slot)


def test_a_used_slot_is_not_given_back():
    bucket = Bucket(1, 60.0)
    slot = bucket.grant(0.0)
    bucket.sent(slot, 0.0)
    bucket.release(slot)
    assert bucket.grant(1.0) == pytest.approx(60, abs=0.5)


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from("grs!a")), max_size=60), st.integers(1, 9))
def test_never_more_sends_than_allowed_whatever_happens(steps, most):
    bucket, now, held, sends = Bucket(most), 0.0, [], []
    for pause, what in steps:
        now += pause / 5
        if what in "g!" and isinstance(found := bucket.grant(now), Slot):
            held.append(found)
        elif held and what == "r":
            bucket.release(held.pop())
        elif held and what in "sa":
            slot = held.pop(0)
            bucket.sent(slot, now)
            sends.append(now)
            if what == "a":
                bucket.answered(slot, pause / 10)
        elif what == "!":
            bucket.throttled(now)
    assert violations(sends, most, 1.0) == 0


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.now += seconds
        await anyio.lowlevel.checkpoint()


async def test_waiters_are_served_in_order():
    clock, order = Clock(), []
    limiter = Limiter(Bucket(10), clock, clock.sleep)

    async def hand(number):
        with await limiter.acquire() as permit:
            permit.sent(clock())
            order.append((number, clock()))
            permit.answered(0.01)

    async with anyio.create_task_group() as group:
        for number in range(30):
            group.start_soon(hand, number)
    assert [number for number, _ in order] == list(range(30))
    assert order[-1][1] >= 2.0


async def test_a_cancelled_waiter_costs_nothing_and_a_replay_takes_a_slot():
    clock = Clock()
    limiter = Limiter(Bucket(2, 10.0), clock, clock.sleep)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await limiter.acquire()
    with await limiter.acquire() as permit:
        permit.sent(clock())
        await permit.again()
        permit.sent(clock())
        first = clock()
    with await limiter.acquire():
        pass
    assert first >= 4.9
    assert clock() >= 10.0


def test_a_window_shrinks_to_what_runs_and_grows_again():
    window = Window(5)
    assert window.room(2) == 3
    window.shrink(2)
    assert (window.size, window.room(2)) == (2, 0)
    for _ in range(9):
        window.completed()
    assert window.size == 5


def test_a_window_without_limit_learns_one():
    window = Window()
    assert window.room(1000) is None
    window.completed()
    window.shrink(0)
    assert window.size == 1
    window.completed()
    assert window.room(1) == 1
