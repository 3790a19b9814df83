"""The bucket before a strict judge, in virtual time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.net.bucket import Bucket
from runner.net.traffic import MOST, Slot
from tests.net.pacing import FAST, SLOW, Client, Server, World, violations

COUNTS = [(5, 600), (50, 4000), (500, 7000)]


def judged(count, total, seconds=1.0, **manners):
    """The server after so many requests of one client at its limit."""
    clients = [Client(Bucket(count, seconds), hands=max(8, count))]
    return World(**manners).run(clients, total)


@pytest.mark.parametrize("back", [FAST, SLOW, (0.09, 0.4), (0.3, 0.31)], ids=str)
@pytest.mark.parametrize(("count", "total"), COUNTS)
def test_no_violation_at_97_per_cent_of_the_limit(count, total, back):
    server = judged(count, total, back=back, seed=count)
    assert violations(server.arrivals, count) == 0
    assert server.use(count) >= 0.97


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("count", "total"), [(5, 600), (50, 3000), (500, 6000)])
def test_stalls_before_the_bytes_leave_cause_no_violation(count, total, seed):
    server = judged(count, total, seed=seed, stalls=0.02)
    assert violations(server.arrivals, count) == 0
    assert server.use(count) >= 0.97


@pytest.mark.parametrize("count", [5, 50, 500])
def test_a_server_that_stands_still_now_and_then_is_seen_by_steady_replies(count):
    holds = [(at * 1.3, at * 1.3 + 0.03 + 0.02 * (at % 8)) for at in range(1, 300)]
    server = judged(count, 6 * count + 300, there=(0.0001, 0.001), back=(0, 0.002), server_hold=holds)
    assert violations(server.arrivals, count) == 0
    assert server.use(count) >= 0.97


@pytest.mark.parametrize("back", [FAST, SLOW], ids=str)
@pytest.mark.parametrize(("count", "seconds"), [(10, 60.0), (30, 60.0), (2.5, 1.0), (0.5, 1.0), (3000, 60.0)])
def test_minutes_and_fractions(count, seconds, back):
    most = max(1, int(count))
    total = 200 if count < 1000 else 6000
    clients = [Client(Bucket(count, seconds), hands=100)]
    server = World(stalls=0.02, back=back).run(clients, total)
    assert violations(server.arrivals, most, seconds * most / count) == 0
    assert server.use(count / seconds) >= 0.965


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    count=st.sampled_from([1, 2, 5, 20, 60]),
    there=st.tuples(st.floats(0, 0.2), st.floats(0, 0.012)),
    back=st.tuples(st.floats(0, 0.6), st.floats(0, 0.6)).map(sorted),
    late=st.floats(0, 0.003),
    seed=st.integers(0, 2**32),
)
def test_whatever_the_delays_nothing_is_refused_and_the_limit_is_used(count, there, back, late, seed):
    """The way there varies by up to 12 ms, the way back as it likes."""
    least, more = there
    server = judged(count, 30 * count + 60, there=(least, least + more), back=back, late=(0, late), seed=seed)
    assert violations(server.arrivals, count) == 0
    # the first windows are spent on learning what the replies say
    assert server.use(count) >= 0.94


def test_what_replies_cost_is_bounded_however_wild_they_are():
    """A tenth of them takes a second, a few never come in time: the mean of what is believed keeps to its budget."""
    dice = random.Random(4)

    class Wild(World):
        def _arrive(self, client, slot, sent):
            self._back = (0.05, 0.06) if dice.random() < 0.9 else (0.5, 1.5)
            super()._arrive(client, slot, sent)

    server = Wild(there=(0.001, 0.005)).run([Client(Bucket(50), hands=100)], 5000)
    assert violations(server.arrivals, 50) == 0
    assert server.use(50) >= 0.95


def test_no_burst_after_a_suspend():
    hold = [(3.0, 3.4), (7.0, 12.0), (15.0, 15.02)]
    arrivals = judged(50, 1500, hold=hold).arrivals
    assert violations(arrivals, 50) == 0
    assert sum(12.0 <= at < 12.05 for at in arrivals) <= 9, "more than 100 ms were caught up"


def test_more_than_fit_into_a_log_are_a_shorter_window():
    bucket = Bucket(6000, 60.0)
    server = World().run([Client(bucket, hands=50)], 3000)
    assert violations(server.arrivals, 6000, 60.0) == 0
    assert server.use(100) >= 0.97
    assert len(bucket.dump()) < 8 * 4 * MOST


@pytest.mark.parametrize(("wait", "pause"), [(5.0, 5.0), (0.0, 0.5), (-3, 0.5), (1e20, 900.0), (None, 1.0)])
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


def test_only_what_is_positive_is_a_rate():
    for number, seconds in ((0, 1.0), (-1, 1.0), (5, 0.0)):
        with pytest.raises(ValueError, match="positive"):
            Bucket(number, seconds)


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
    assert violations(sends, most) == 0


# from process to process


def used(bucket, now=0.0, count=40):
    """The bucket after some traffic, and the time."""
    for _ in range(count):
        while not isinstance(slot := bucket.grant(now), Slot):
            now = slot
        bucket.sent(slot, now)
        bucket.answered(slot, 0.01)
        now += 0.001
    return now


def test_what_is_handed_on_is_the_whole_of_it():
    bucket, other = Bucket(7), Bucket(7)
    now = used(bucket)
    bucket.grant(now + 0.2)
    bucket.throttled(now + 0.3)
    other.load(bucket.dump(), now + 0.3)
    assert other.dump() == bucket.dump()
    for at in (0.4, 1.4, 3.0, 9.0):
        assert other.rate(now + at) == bucket.rate(now + at)


@pytest.mark.parametrize("manner", ["another boot", "the future"])
def test_of_an_earlier_boot_only_what_was_learned_is_taken(manner):
    bucket, other = Bucket(50), Bucket(50)
    server = World(server=Server(10)).run([Client(bucket)], 200)
    assert len(server.refused) > 0
    other.load(bucket.dump(), 5.0, old=manner == "another boot")
    assert other.rate(5.0) == pytest.approx(10)
    assert isinstance(other.grant(5.0), Slot), "stamps of another boot say nothing about now"


@given(st.binary(max_size=400), st.booleans())
def test_what_cannot_be_read_is_nothing(data, old):
    bucket = Bucket(5)
    bucket.load(data, 1.0, old=old)
    assert isinstance(bucket.grant(1.0), Slot)


@given(st.integers(0, 2000), st.integers(0, 7))
def test_a_state_that_was_cut_or_changed_is_nothing_or_is_bounded(cut, bit):
    bucket = Bucket(5)
    now = used(bucket)
    data = bytearray(bucket.dump())
    data[cut % len(data)] ^= 1 << bit
    for broken in (bytes(data[: cut % len(data)]), bytes(data[: len(data) // 8 * 4])):
        other = Bucket(5)
        other.load(broken, now)
        assert isinstance(other.grant(now + 1000), Slot)


def test_the_greatest_wish_decides_and_each_keeps_to_its_own_rate():
    modest, greedy = Bucket(5, seat=1), Bucket(50, seat=2)
    greedy.load(modest.dump(), 0.0)
    modest.load(greedy.dump(), 0.0)
    assert modest.rate(0.0) == greedy.rate(0.0) == 50
    now, sends = 0.0, 0
    while now < 20:
        found = modest.grant(now)
        if isinstance(found, Slot):
            modest.sent(found, now)
            sends += 1
        now = max(found if isinstance(found, float) else now, now) + 0.001
    assert 95 <= sends <= 101


def test_who_is_gone_holds_nothing():
    one, other = Bucket(2, seat=1), Bucket(2, seat=2)
    one.load(other.dump(), 0.0)
    assert isinstance(one.grant(0.0), Slot)
    assert isinstance(one.grant(0.6), Slot)
    other.load(one.dump(), 1.2)
    assert isinstance(other.grant(1.2), float)
    other.leave(1)
    assert isinstance(other.grant(1.2), Slot)
    assert other.others == []
