"""Sliding window against a strict server, in virtual time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.ratelimit.window import MAX_REQUESTS, SlidingWindow, Slot
from tests.ratelimit.virtual_time import FAST, SLOW, Client, Server, Simulation, violations

COUNTS = [(5, 600), (50, 4000), (500, 7000)]


def simulated(count, total, seconds=1.0, **options):
    """Return the server after `total` requests of one client at its limit."""
    clients = [Client(SlidingWindow(count, seconds), concurrency=max(8, count))]
    return Simulation(**options).run(clients, total)


@pytest.mark.slow
@pytest.mark.parametrize("back", [FAST, SLOW, (0.09, 0.4), (0.3, 0.31)], ids=str)
@pytest.mark.parametrize(("count", "total"), COUNTS)
def test_no_violation_at_97_per_cent_of_the_limit(count, total, back):
    server = simulated(count, total, back=back, seed=count)
    assert violations(server.arrivals, count) == 0
    assert server.use(count) >= 0.97


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("count", "total"), [(5, 600), (50, 3000), (500, 6000)])
def test_stalls_before_sending_cause_no_violation(count, total, seed):
    server = simulated(count, total, seed=seed, stalls=0.02)
    assert violations(server.arrivals, count) == 0
    assert server.use(count) >= 0.97


@pytest.mark.parametrize("count", [5, 50, 500])
def test_server_stalls_are_detected_by_steady_replies(count):
    holds = [(at * 1.3, at * 1.3 + 0.03 + 0.02 * (at % 8)) for at in range(1, 300)]
    server = simulated(count, 6 * count + 300, there=(0.0001, 0.001), back=(0, 0.002), server_hold=holds)
    assert violations(server.arrivals, count) == 0
    assert server.use(count) >= 0.97


@pytest.mark.parametrize("back", [FAST, SLOW], ids=str)
@pytest.mark.parametrize(("count", "seconds"), [(10, 60.0), (30, 60.0), (2.5, 1.0), (0.5, 1.0), (3000, 60.0)])
def test_rates_per_minute_and_fractional_rates(count, seconds, back):
    most = max(1, int(count))
    total = 200 if count < 1000 else 6000
    clients = [Client(SlidingWindow(count, seconds), concurrency=100)]
    server = Simulation(stalls=0.02, back=back).run(clients, total)
    assert violations(server.arrivals, most, seconds * most / count) == 0
    assert server.use(count / seconds) >= 0.965


@pytest.mark.slow
@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    count=st.sampled_from([1, 2, 5, 20, 60]),
    there=st.tuples(st.floats(0, 0.2), st.floats(0, 0.012)),
    back=st.tuples(st.floats(0, 0.6), st.floats(0, 0.6)).map(sorted),
    late=st.floats(0, 0.003),
    seed=st.integers(0, 2**32),
)
def test_any_delays_keep_to_the_limit_and_use_it(count, there, back, late, seed):
    """The time to the server varies by up to 12 ms, the time of the reply by any amount."""
    least, more = there
    server = simulated(count, 30 * count + 60, there=(least, least + more), back=back, late=(0, late), seed=seed)
    assert violations(server.arrivals, count) == 0
    # the first windows are spent on learning the delays of the replies
    assert server.use(count) >= 0.94


def test_wild_reply_times_cost_a_bounded_share():
    """A tenth of the replies takes a second, some even longer: the mean assumed delay keeps to its limit."""
    dice = random.Random(4)

    class Wild(Simulation):
        def _arrive(self, client, slot, sent):
            self._back = (0.05, 0.06) if dice.random() < 0.9 else (0.5, 1.5)
            super()._arrive(client, slot, sent)

    server = Wild(there=(0.001, 0.005)).run([Client(SlidingWindow(50), concurrency=100)], 5000)
    assert violations(server.arrivals, 50) == 0
    assert server.use(50) >= 0.95


def test_no_burst_after_a_suspend():
    hold = [(3.0, 3.4), (7.0, 12.0), (15.0, 15.02)]
    arrivals = simulated(50, 1500, hold=hold).arrivals
    assert violations(arrivals, 50) == 0
    assert sum(12.0 <= at < 12.05 for at in arrivals) <= 9, "more than 100 ms were caught up"


def test_high_counts_use_a_shorter_window():
    window = SlidingWindow(6000, 60.0)
    server = Simulation().run([Client(window, concurrency=50)], 3000)
    assert violations(server.arrivals, 6000, 60.0) == 0
    assert server.use(100) >= 0.97
    assert len(window.dump()) < 8 * 4 * MAX_REQUESTS


@pytest.mark.parametrize(("wait", "pause"), [(5.0, 5.0), (0.0, 0.5), (-3, 0.5), (1e20, 900.0), (None, 1.0)])
def test_requested_pause_is_bounded(wait, pause):
    window = SlidingWindow(10)
    window.throttled(100.0, wait)
    assert window.grant(100.0) == pytest.approx(100.0 + pause)


def test_unused_latest_slot_is_reused():
    window = SlidingWindow(1, 60.0)
    slot = window.grant(0.0)
    assert window.grant(0.1) > 0.1
    window.release(slot)
    assert isinstance(window.grant(0.1), Slot)


def test_used_slot_is_not_reused():
    window = SlidingWindow(1, 60.0)
    slot = window.grant(0.0)
    window.sent(slot, 0.0)
    window.release(slot)
    assert window.grant(1.0) == pytest.approx(60, abs=0.5)


def test_rate_must_be_positive():
    for number, seconds in ((0, 1.0), (-1, 1.0), (5, 0.0)):
        with pytest.raises(ValueError, match="positive"):
            SlidingWindow(number, seconds)


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from("grs!a")), max_size=60), st.integers(1, 9))
def test_any_sequence_of_calls_keeps_to_the_limit(steps, most):
    window, now, held, sends = SlidingWindow(most), 0.0, [], []
    for pause, step in steps:
        now += pause / 5
        if step in "g!" and isinstance(slot := window.grant(now), Slot):
            held.append(slot)
        elif held and step == "r":
            window.release(held.pop())
        elif held and step in "sa":
            slot = held.pop(0)
            window.sent(slot, now)
            sends.append(now)
            if step == "a":
                window.answered(slot, pause / 10)
        elif step == "!":
            window.throttled(now)
    assert violations(sends, most) == 0


# transfer between processes


def fill(window, now=0.0, count=40):
    """Send `count` requests and return the time."""
    for _ in range(count):
        while not isinstance(slot := window.grant(now), Slot):
            now = slot
        window.sent(slot, now)
        window.answered(slot, 0.01)
        now += 0.001
    return now


def test_dump_and_load_transfer_the_whole_state():
    window, other = SlidingWindow(7), SlidingWindow(7)
    now = fill(window)
    window.grant(now + 0.2)
    window.throttled(now + 0.3)
    other.load(window.dump(), now + 0.3)
    assert other.dump() == window.dump()
    for at in (0.4, 1.4, 3.0, 9.0):
        assert other.rate(now + at) == window.rate(now + at)


@pytest.mark.parametrize("origin", ["another boot", "the future"])
def test_load_of_an_earlier_boot_keeps_the_learned_rate(origin):
    window, other = SlidingWindow(50), SlidingWindow(50)
    server = Simulation(server=Server(10)).run([Client(window)], 200)
    assert len(server.refused) > 0
    other.load(window.dump(), 5.0, earlier_boot=origin == "another boot")
    assert other.rate(5.0) == pytest.approx(10)
    assert isinstance(other.grant(5.0), Slot), "send times of another boot do not count"


@given(st.binary(max_size=400), st.booleans())
def test_load_ignores_unreadable_data(data, old):
    window = SlidingWindow(5)
    window.load(data, 1.0, earlier_boot=old)
    assert isinstance(window.grant(1.0), Slot)


@given(st.integers(0, 2000), st.integers(0, 7))
def test_damaged_state_cannot_block_for_long(cut, bit):
    """A truncated or changed state is ignored, or delays a grant by a bounded time."""
    window = SlidingWindow(5)
    now = fill(window)
    data = bytearray(window.dump())
    data[cut % len(data)] ^= 1 << bit
    for broken in (bytes(data[: cut % len(data)]), bytes(data[: len(data) // 8 * 4])):
        other = SlidingWindow(5)
        other.load(broken, now)
        assert isinstance(other.grant(now + 1000), Slot)


def test_highest_target_decides_for_the_account():
    """The process with the highest target decides the rate, and each process keeps to its own ceiling."""
    low, high = SlidingWindow(5, process_slot=1), SlidingWindow(50, process_slot=2)
    high.load(low.dump(), 0.0)
    low.load(high.dump(), 0.0)
    assert low.rate(0.0) == high.rate(0.0) == 50
    now, sends = 0.0, 0
    while now < 20:
        granted = low.grant(now)
        if isinstance(granted, Slot):
            low.sent(granted, now)
            sends += 1
        now = max(granted if isinstance(granted, float) else now, now) + 0.001
    assert 95 <= sends <= 101


def test_ended_process_holds_no_slots():
    one, other = SlidingWindow(2, process_slot=1), SlidingWindow(2, process_slot=2)
    one.load(other.dump(), 0.0)
    assert isinstance(one.grant(0.0), Slot)
    assert isinstance(one.grant(0.6), Slot)
    other.load(one.dump(), 1.2)
    assert isinstance(other.grant(1.2), float)
    other.leave(1)
    assert isinstance(other.grant(1.2), Slot)
    assert other.other_processes == []
