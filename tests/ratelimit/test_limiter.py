"""Waiters are served in order by one timer, and a cancelled one takes no slot."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from runner.ratelimit.limiter import InFlightWindow, Limiter
from runner.ratelimit.window import SlidingWindow


class Clock:
    """Clock whose sleep returns at once and advances it."""

    def __init__(self):
        self.now, self.sleeps = 0.0, []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.now += seconds
        await anyio.lowlevel.checkpoint()


async def test_waiters_are_served_in_order():
    clock, order = Clock(), []
    limiter = Limiter(SlidingWindow(10), clock, clock.sleep)

    async def work(number):
        with await limiter.acquire() as permit:
            permit.sent(clock())
            order.append((number, clock()))
            permit.answered(0.01)

    async with anyio.create_task_group() as group:
        for number in range(30):
            group.start_soon(work, number)
    assert [number for number, _ in order] == list(range(30))
    assert order[-1][1] >= 2.0


async def test_one_timer_serves_all_due_waiters():
    """The head of the queue sleeps too long, as on a busy machine: all waiters that became due are served at once."""
    clock, times = Clock(), []
    limiter = Limiter(SlidingWindow(100), clock, clock.sleep)

    async def oversleep(seconds):
        clock.now += 0.09 if len(times) == 11 else seconds
        await anyio.lowlevel.checkpoint()

    limiter._sleep = oversleep

    async def work():
        with await limiter.acquire() as permit:
            permit.sent(clock())
            times.append(round(clock(), 6))

    async with anyio.create_task_group() as group:
        for _ in range(40):
            group.start_soon(work)
    assert max(map(times.count, times)) >= 9


async def test_cancelled_waiter_takes_no_slot_but_a_replay_does():
    clock = Clock()
    limiter = Limiter(SlidingWindow(2, 10.0), clock, clock.sleep)
    with await limiter.acquire() as permit:
        permit.sent(clock())
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(limiter.acquire)
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        assert clock() < 5.0
        await permit.reacquire()
        permit.sent(clock())
        first = clock()
    with await limiter.acquire():
        pass
    assert 4.9 <= first <= 5.1
    assert 10.0 <= clock() <= 10.5


@pytest.mark.parametrize("steps", range(6))
async def test_cancellation_does_not_stop_other_waiters(steps):
    clock, served = Clock(), []
    limiter = Limiter(SlidingWindow(5), clock, clock.sleep)

    async def work(number):
        with await limiter.acquire() as permit:
            permit.sent(clock())
            served.append(number)

    async with anyio.create_task_group() as group:
        scopes = [anyio.CancelScope() for _ in range(6)]

        async def scoped(number):
            with scopes[number]:
                await work(number)

        for number in range(6):
            group.start_soon(scoped, number)
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
        for number in (0, 1, 3):
            scopes[number].cancel()
    assert served == sorted(served)
    assert {2, 4, 5} <= set(served)
    assert len(limiter._queue) == 0


async def test_slot_of_a_cancelled_waiter_is_released():
    """Two waiters get slots together, and the second is cancelled before it runs."""
    clock = Clock()
    window = SlidingWindow(2, 60.0)
    limiter = Limiter(window, clock, clock.sleep)
    second = None

    async def first():
        with await limiter.acquire() as permit:
            permit.sent(clock())
            clock.now += 60.0  # a slot for the second is due by now
            limiter._grant_due()
            second.cancel()

    async with asyncio.TaskGroup() as group:
        group.create_task(first())
        second = group.create_task(limiter.acquire())
    assert second.cancelled()
    with await limiter.acquire() as permit:
        permit.sent(clock())
    assert clock() == 60.0


async def test_sleeps_last_at_most_a_second():
    """Another process may give slots back at any time, so a waiter asks again after a second."""
    clock = Clock()
    limiter = Limiter(SlidingWindow(1, 60.0), clock, clock.sleep)
    for _ in range(2):
        with await limiter.acquire() as permit:
            permit.sent(clock())
    assert max(clock.sleeps) <= 1.0
    assert clock() >= 60.0


async def test_throttled_request_pauses_all():
    clock = Clock()
    limiter = Limiter(SlidingWindow(10), clock, clock.sleep)
    with await limiter.acquire() as permit:
        permit.sent(clock())
        permit.answered(0.02)
        permit.throttled(3.0)
    await limiter.acquire()
    assert clock() >= 3.0


def test_window_shrinks_to_running_tasks_and_grows_again():
    window = InFlightWindow(5)
    assert window.available(2) == 3
    window.shrink(2)
    assert (window.size, window.available(2)) == (2, 0)
    for _ in range(9):
        window.grow()
    assert window.size == 5


def test_unlimited_window_learns_a_limit():
    window = InFlightWindow()
    assert window.available(1000) is None
    window.grow()
    window.shrink(0)
    assert window.size == 1
    window.grow()
    assert window.available(1) == 1
