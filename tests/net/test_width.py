"""Adaptive limit on concurrent downloads from one host."""

import anyio
import pytest

from runner.net.width import Width


async def test_limit_is_halved_once_per_burst_and_raised_by_success():
    limit = Width(8)
    async with limit.place() as decreases:
        limit.refused(decreases)
        limit.refused(decreases)  # a second download of the same burst
    assert repr(limit) == "AdaptiveConcurrency(0 of 4 of 8)"
    async with limit.place() as decreases:
        limit.refused(decreases)
    assert limit.size == 2
    for _ in range(3):
        limit.served()
    assert limit.size == 3
    for _ in range(100):
        limit.served()
    assert limit.size == 8


@pytest.mark.parametrize("maximum", [1, 2, 5])
async def test_one_download_is_always_allowed(maximum):
    limit = Width(maximum)
    for _ in range(5):
        async with limit.place() as decreases:
            limit.refused(decreases)
    assert limit.size == 1
    with anyio.fail_after(1):
        async with limit.place():
            pass


async def test_waiting_downloads_start_in_order():
    """Downloads start in order when a place is given back or the limit rises."""
    limit, order = Width(4), []

    async def enter(number):
        async with limit.place():
            order.append(number)

    async with anyio.create_task_group() as group, limit.place() as decreases:
        limit.refused(decreases)
        limit.refused(1)  # the limit is one, and this test holds the place
        for number in range(3):
            group.start_soon(enter, number)
            await anyio.wait_all_tasks_blocked()
        assert order == []
        limit.served()
        await anyio.wait_all_tasks_blocked()
        assert order == [0, 1, 2]
