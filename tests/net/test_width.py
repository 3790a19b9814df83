"""How many downloads a host gets at once."""

import anyio
import pytest

from runner.net.width import Width


async def test_it_is_halved_once_by_all_that_were_refused_together_and_widened_by_what_succeeds():
    width = Width(8)
    async with width.place() as times:
        width.refused(times)
        width.refused(times)  # as another would say that began when it did
    assert repr(width) == "Width(0 of 4 of 8)"
    async with width.place() as third:
        width.refused(third)
    assert width.size == 2
    for _ in range(3):
        width.served()
    assert width.size == 3
    for _ in range(100):
        width.served()
    assert width.size == 8


@pytest.mark.parametrize("most", [1, 2, 5])
async def test_one_is_always_let_in(most):
    width = Width(most)
    for _ in range(5):
        async with width.place() as times:
            width.refused(times)
    assert width.size == 1
    with anyio.fail_after(1):
        async with width.place():
            pass


async def test_those_who_wait_come_in_turn_as_places_are_given_back_or_made():
    width, order = Width(4), []

    async def enter(number):
        async with width.place():
            order.append(number)

    async with anyio.create_task_group() as group, width.place() as times:
        width.refused(times)
        width.refused(1)  # one place now, and it is ours
        for number in range(3):
            group.start_soon(enter, number)
            await anyio.wait_all_tasks_blocked()
        assert order == []
        width.served()
        await anyio.wait_all_tasks_blocked()
        assert order == [0, 1, 2]
