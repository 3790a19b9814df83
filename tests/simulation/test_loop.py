"""The event loop of the simulation: virtual time, one order per seed, and the private names it uses."""

from __future__ import annotations

import asyncio
import inspect
import random

import anyio
import pytest
from anyio._backends import _asyncio as backend

from tests.simulation.loop import DeadlockError, SimLoop, numbered_scopes


def run(coroutine, seed=0, **options):
    loop = SimLoop(random.Random(seed), **options)
    try:
        with numbered_scopes():
            return loop.run_until_complete(coroutine), loop.time()
    finally:
        loop.close()


async def test_private_names_of_asyncio_and_anyio_exist():
    loop = asyncio.SelectorEventLoop()
    try:
        for name in ("_ready", "_scheduled", "_timer_cancelled_count", "_clock_resolution", "_run_once"):
            assert hasattr(loop, name), name
        handle = loop.call_later(1, print)
        for name in ("_cancelled", "_scheduled", "_when"):
            assert hasattr(handle, name), name
    finally:
        loop.close()
    assert "_selector.select(timeout)" in inspect.getsource(asyncio.base_events.BaseEventLoop._run_once)
    assert list(inspect.signature(backend.CancelScope.__new__).parameters)[1:] == ["deadline", "shield"]
    assert "return CancelScope(" in inspect.getsource(backend.AsyncIOBackend.create_cancel_scope)


def test_virtual_day_passes_at_once():
    async def sleep():
        await anyio.sleep(86_400)
        return anyio.current_time()

    assert run(sleep(), start=100.0) == (86_500.0, 86_500.0)


def test_timeouts_and_timers_use_virtual_time():
    async def late():
        with anyio.move_on_after(5) as scope:
            await anyio.sleep(1000)
        async with asyncio.timeout(10_000):
            await anyio.sleep(1)
        return scope.cancelled_caught

    assert run(late()) == (True, 6.0)


def test_waiting_for_nothing_is_a_deadlock():
    async def wait():
        await anyio.Event().wait()

    with pytest.raises(DeadlockError):
        run(wait())


def test_busy_loop_is_detected():
    async def spin():
        for _ in range(10**6):
            await asyncio.sleep(0)

    loop = SimLoop(random.Random(0))
    loop.limit = 1000
    with pytest.raises(DeadlockError, match="1000 steps"):
        loop.run_until_complete(spin())
    loop.limit = 10**9
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()


async def _order(count=8):
    seen = []

    async def note(number):
        await asyncio.sleep(0)
        seen.append(number)

    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(note, number)
    return tuple(seen)


def test_seed_determines_order():
    orders = {run(_order(), seed)[0] for seed in range(10)}
    assert orders == {run(_order(), seed)[0] for seed in range(10)}
    assert len(orders) > 5


def test_order_is_fifo_without_shuffling():
    assert run(_order(), 3, shuffled=False)[0] == tuple(range(8))
