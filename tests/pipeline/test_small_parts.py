"""Bell, breaker, clock, outcome, stage: the small parts of the pipeline, each alone."""

import itertools

import anyio
import anyio.lowlevel
import pytest

from runner.errors import DiskError
from runner.lifecycle.task import State, Task
from runner.pipeline.bell import Bell
from runner.pipeline.breaker import Breaker
from runner.pipeline.clock import Clock
from runner.pipeline.outcome import MEANING, PRECEDENCE, Ending, Exit, outcome
from runner.pipeline.stage import Stage


async def test_a_ring_between_looking_and_waiting_is_not_lost():
    bell = Bell()
    bell.ring("queued")
    with anyio.fail_after(1):
        await bell.wait("queued")
    with anyio.move_on_after(0.01) as scope:
        await bell.wait("queued")
    assert scope.cancelled_caught, "one ring wakes once"


async def test_a_ring_that_several_listen_to_is_heard_by_each_of_them_once():
    """None of them waits yet, since all are looking; the first that does must not take it from the others."""
    bell = Bell()
    since = bell.rings("running")
    bell.ring("running")
    with anyio.fail_after(1):
        for _ in range(3):
            await bell.wait("running", since=since)
    with anyio.move_on_after(0.01) as scope:
        await bell.wait("running", since=bell.rings("running"))
    assert scope.cancelled_caught


@pytest.mark.parametrize("lucky", range(3))
async def test_of_stages_with_one_name_the_right_one_looks_again_after_a_ring_that_came_while_all_looked(lucky):
    bell, looks, rows, found = Bell(), anyio.Event(), [], []

    def looking(number):
        async def claim(batches, held):
            seen = [[rows.pop()]] if rows and number == lucky else []
            await looks.wait()
            for _ in range(10 * number):  # some take longer to look than others
                await anyio.lowlevel.checkpoint()
            return seen

        async def work(batch):
            found.append(number)

        async def nothing(*_):
            return None

        return Stage("s", hands=1, bell=bell, now=lambda: 0.0, claim=claim, work=work, next_due=nothing, broken=nothing)

    with anyio.move_on_after(5):
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(looking(number).run)
            await anyio.wait_all_tasks_blocked()
            rows.append(task(1))  # comes while all of them look
            bell.ring("s")
            looks.set()
            while not found:
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
    assert found == [lucky]


async def test_one_ring_wakes_everyone_who_waits():
    bell, woken = Bell(), []

    async def sleeper(name: int) -> None:
        await bell.wait("running")
        woken.append(name)

    with anyio.fail_after(1):
        async with anyio.create_task_group() as group:
            group.start_soon(sleeper, 1)
            group.start_soon(sleeper, 2)
            await anyio.wait_all_tasks_blocked()
            bell.ring("running")
    assert sorted(woken) == [1, 2]


def test_three_doubts_in_a_row_or_three_of_forty_stop_submits_until_one_is_settled():
    row, spread = Breaker(), Breaker()
    for _ in range(3):
        assert not row.doubtful
        row.submitted(doubtful=True)
    assert row.doubtful
    row.settled()
    assert not row.doubtful
    for number in range(30):
        spread.submitted(doubtful=number % 10 == 0)
    assert spread.doubtful


def test_two_doubts_among_many_stop_nothing():
    breaker = Breaker()
    for number in range(200):
        breaker.submitted(doubtful=number % 25 == 0)
        assert not breaker.doubtful


async def test_five_silences_are_an_outage_until_an_answer():
    breaker = Breaker()
    for _ in range(5):
        assert not breaker.outage
        breaker.answered(properly=False)
    assert breaker.outage
    with anyio.fail_after(1):
        async with anyio.create_task_group() as group:
            group.start_soon(breaker.until_answering)
            await anyio.wait_all_tasks_blocked()
            breaker.answered(properly=True)


def test_the_clock_never_jumps_with_the_wall_and_boots_are_told_apart():
    wall, steady = itertools.count(1_000_000, 86_400), iter([100.0, 100.0, 101.0, 102.0])
    clock = Clock(wall=lambda: float(next(wall)), monotonic=lambda: next(steady), boottime=lambda: 50.0, boot="this")
    first = clock.now()
    assert clock.now() - first == pytest.approx(1.0)
    until = clock.moment()
    assert clock.since("this", 20.0, until) == 30.0
    assert clock.since("another", 20.0, until) == 0.0, "another boot counts from the start of this process"


def test_the_exit_code_is_the_one_that_counts_most():
    told = outcome([Ending(Exit.FAILED, "a"), Ending(Exit.HELD, "b"), Ending(Exit.INT, "c"), Ending(Exit.HELD, "d")])
    assert told.exit is Exit.HELD
    assert [ending.why for ending in told.endings] == ["b", "c", "a"]
    assert outcome([]).exit is Exit.DONE
    order = [13, 14, 4, 1, 12, 7, 6, 8, 129, 130, 143, 5, 3]
    assert [int(code) for code in PRECEDENCE] == order
    assert set(MEANING) == set(Exit)


def task(number: int) -> Task:
    return Task(number, "k", "p", "o", "m", State.READY, 0.0)


def stage(rows, work, aside, hands=2):
    async def claim(batches, held):
        found = [[row] for row in rows if row.id not in held][:batches]
        for (row,) in found:
            rows.remove(row)
        return found

    async def next_due():
        return None

    async def broken(batch, error):
        aside.append((batch[0].id, type(error)))

    return Stage(
        "s", hands=hands, bell=Bell(), now=lambda: 0.0, claim=claim, work=work, next_due=next_due, broken=broken
    )


async def test_no_more_is_claimed_than_idle_hands_can_hold():
    busy, most, done = 0, 0, []

    async def work(batch):
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await anyio.lowlevel.checkpoint()
        busy -= 1
        done.append(batch[0].id)

    rows = [task(number) for number in range(7)]
    with anyio.move_on_after(5):
        async with anyio.create_task_group() as group:
            running = stage(rows, work, [])
            group.start_soon(running.run)
            while len(done) < 7:
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
    assert (most, sorted(done), running.idle) == (2, list(range(7)), True)


async def test_a_bug_in_one_task_puts_it_aside_and_the_others_go_on():
    aside, done = [], []

    async def work(batch):
        if batch[0].id == 1:
            raise KeyError
        done.append(batch[0].id)

    rows = [task(number) for number in range(4)]
    async with anyio.create_task_group() as group:
        group.start_soon(stage(rows, work, aside).run)
        while len(done) < 3 or not aside:
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert aside == [(1, KeyError)]


async def test_a_full_disk_is_nobodys_bug_and_ends_the_stage():
    async def work(batch):
        raise DiskError("full")

    with pytest.raises(BaseExceptionGroup) as caught:
        await stage([task(1)], work, []).run()
    assert caught.group_contains(DiskError)


async def test_a_look_that_is_due_in_less_than_a_clock_can_tell_is_waited_for_all_the_same():
    """A pause of 1e-13 s moves no clock on, so that it would be made again and again."""
    waited = []

    class Told(Bell):
        async def wait(self, name, timeout=None, *, since=None):  # noqa: ASYNC109 - as the bell has it
            waited.append(timeout)
            await anyio.sleep_forever()

    async def nothing(*_):
        return []

    async def soon():
        return 1e-13

    resting = Stage(
        "s", hands=1, bell=Told(), now=lambda: 0.0, claim=nothing, work=nothing, next_due=soon, broken=nothing
    )
    async with anyio.create_task_group() as group:
        group.start_soon(resting.run)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert waited == [0.001]
