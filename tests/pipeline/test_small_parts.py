"""Notifier, breaker, clock, outcome and stage, each alone."""

import itertools

import anyio
import anyio.lowlevel
import pytest

from runner.errors import DiskError
from runner.lifecycle.task import State, Task
from runner.pipeline.clock import Clock
from runner.pipeline.outcome import MEANING, PRECEDENCE, Ending, Exit, run_outcome
from runner.pipeline.session import CircuitBreaker
from runner.pipeline.stage import Notifier, Stage


async def test_a_notification_between_scan_and_wait_is_not_lost():
    notifier = Notifier()
    notifier.notify("queued")
    with anyio.fail_after(1):
        await notifier.wait("queued")
    with anyio.move_on_after(0.01) as scope:
        await notifier.wait("queued")
    assert scope.cancelled_caught, "one notification wakes once"


async def test_a_notification_reaches_each_of_several_listeners_once():
    """None of them waits yet, since all are scanning; the first that waits must not take it from the others."""
    notifier = Notifier()
    since = notifier.count("running")
    notifier.notify("running")
    with anyio.fail_after(1):
        for _ in range(3):
            await notifier.wait("running", since=since)
    with anyio.move_on_after(0.01) as scope:
        await notifier.wait("running", since=notifier.count("running"))
    assert scope.cancelled_caught


@pytest.mark.parametrize("lucky", range(3))
async def test_notify_wakes_the_right_stage_sharing_a_name(lucky):
    """The notification comes while all stages of the name are scanning."""
    notifier, scan_ends, rows, found = Notifier(), anyio.Event(), [], []

    def scanning(number):
        async def claim(batches, held):
            seen = [[rows.pop()]] if rows and number == lucky else []
            await scan_ends.wait()
            for _ in range(10 * number):  # some scans take longer than others
                await anyio.lowlevel.checkpoint()
            return seen

        async def work(batch):
            found.append(number)

        async def nothing(*_):
            return None

        return Stage(
            "s",
            concurrency=1,
            notifier=notifier,
            now=lambda: 0.0,
            claim=claim,
            work=work,
            next_due=nothing,
            on_broken=nothing,
        )

    with anyio.move_on_after(5):
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(scanning(number).run)
            await anyio.wait_all_tasks_blocked()
            rows.append(task(1))  # comes while all of them scan
            notifier.notify("s")
            scan_ends.set()
            while not found:
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
    assert found == [lucky]


async def test_one_notification_wakes_every_waiter():
    notifier, woken = Notifier(), []

    async def sleeper(name: int) -> None:
        await notifier.wait("running")
        woken.append(name)

    with anyio.fail_after(1):
        async with anyio.create_task_group() as group:
            group.start_soon(sleeper, 1)
            group.start_soon(sleeper, 2)
            await anyio.wait_all_tasks_blocked()
            notifier.notify("running")
    assert sorted(woken) == [1, 2]


def test_three_doubts_in_a_row_or_of_forty_stop_submits():
    row, spread = CircuitBreaker(), CircuitBreaker()
    for _ in range(3):
        assert not row.doubtful
        row.record_submit(doubtful=True)
    assert row.doubtful
    row.record_settled_doubt()
    assert not row.doubtful
    for number in range(30):
        spread.record_submit(doubtful=number % 10 == 0)
    assert spread.doubtful


def test_two_doubts_among_many_stop_nothing():
    breaker = CircuitBreaker()
    for number in range(200):
        breaker.record_submit(doubtful=number % 25 == 0)
        assert not breaker.doubtful


async def test_five_silences_are_an_outage_until_an_answer():
    breaker = CircuitBreaker()
    for _ in range(5):
        assert not breaker.outage
        breaker.record_answer(proper=False)
    assert breaker.outage
    with anyio.fail_after(1):
        async with anyio.create_task_group() as group:
            group.start_soon(breaker.until_answering)
            await anyio.wait_all_tasks_blocked()
            breaker.record_answer(proper=True)


def test_clock_never_jumps_and_distinguishes_boots():
    wall, steady = itertools.count(1_000_000, 86_400), iter([100.0, 100.0, 101.0, 102.0])
    clock = Clock(wall=lambda: float(next(wall)), monotonic=lambda: next(steady), boottime=lambda: 50.0, boot="this")
    first = clock.now()
    assert clock.now() - first == pytest.approx(1.0)
    until = clock.moment()
    assert clock.since("this", 20.0, until) == 30.0
    assert clock.since("another", 20.0, until) == 0.0, "another boot counts from the start of this process"


def test_the_weightiest_reason_gives_the_exit_code():
    ended = run_outcome(
        [Ending(Exit.FAILED, "a"), Ending(Exit.HELD, "b"), Ending(Exit.INT, "c"), Ending(Exit.HELD, "d")]
    )
    assert ended.exit is Exit.HELD
    assert [ending.why for ending in ended.endings] == ["b", "c", "a"]
    assert run_outcome([]).exit is Exit.DONE
    order = [13, 14, 4, 1, 12, 7, 6, 8, 129, 130, 143, 5, 3]
    assert [int(code) for code in PRECEDENCE] == order
    assert set(MEANING) == set(Exit)


def task(number: int) -> Task:
    return Task(number, "k", "p", "o", "m", State.READY, 0.0)


def stage(rows, work, aside, concurrency=2):
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
        "s",
        concurrency=concurrency,
        notifier=Notifier(),
        now=lambda: 0.0,
        claim=claim,
        work=work,
        next_due=next_due,
        on_broken=broken,
    )


async def test_no_more_is_claimed_than_free_workers_can_hold():
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


async def test_a_bug_sets_one_task_aside_and_the_others_go_on():
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


async def test_a_full_disk_is_no_bug_and_ends_the_stage():
    async def work(batch):
        raise DiskError("full")

    with pytest.raises(BaseExceptionGroup) as caught:
        await stage([task(1)], work, []).run()
    assert caught.group_contains(DiskError)


async def test_a_task_due_within_a_clock_tick_is_waited_for():
    """A pause of 1e-13 s moves no clock on, so that it would be repeated without end."""
    waited = []

    class RecordingNotifier(Notifier):
        async def wait(self, name, timeout=None, *, since=None):  # noqa: ASYNC109 - as Notifier has it
            waited.append(timeout)
            await anyio.sleep_forever()

    async def nothing(*_):
        return []

    async def soon():
        return 1e-13

    resting = Stage(
        "s",
        concurrency=1,
        notifier=RecordingNotifier(),
        now=lambda: 0.0,
        claim=nothing,
        work=nothing,
        next_due=soon,
        on_broken=nothing,
    )
    async with anyio.create_task_group() as group:
        group.start_soon(resting.run)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert waited == [0.001]
