"""Polls over a real store and a real limiter; only the provider's end of the wire is played."""

from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest

from runner.providers import spec as specs
from runner.providers.requests import Reply
from runner.ratelimit.limiter import Limiter
from runner.ratelimit.window import SlidingWindow
from runner.scheduler.clock import Clock
from runner.scheduler.poll import PollStage
from runner.scheduler.stage import Notifier
from runner.store.store import Store
from runner.store.task_rows import Addition
from runner.tasks.events import Accepted
from runner.tasks.models import Draft, Moment, State
from runner.tasks.retry_policy import RetryPolicy
from tests.pipelines import pipeline


class Provider:
    """Chanjing's page of tasks: those in `ended` have failed, the others run."""

    def __init__(self):
        self.asked, self.ended, self.polled = [], set(), anyio.Event()

    async def send(self, request, permit=None):
        permit.sent(anyio.current_time())
        ids = request.body["unique_ids"] if request.body else [request.path.rpartition("/")[2]]
        self.asked.append(sorted(ids))
        self.polled.set()
        rows = [{"unique_id": id_, "progress_desc": "Error" if id_ in self.ended else "Generating"} for id_ in ids]
        return Reply(200, {"code": 0, "data": {"list": rows}})


@asynccontextmanager
async def polling(directory, count, *, name="chanjing", rate=100.0, first_poll=0.05):
    """Yield a pipeline with `count` running tasks, all of them due, whose polls run."""
    clock, notifier, spec, provider = Clock(), Notifier(), specs.load(name), Provider()
    operation, model = next((model.operation, key) for key, model in spec.models.items())
    store = await Store.open(directory / ".runner")
    try:
        drafts = [
            Draft(f"{n:08x}".ljust(32, "0"), n + 1, 1, {}, name, operation, model, {}, f"n{n}") for n in range(count)
        ]
        await store.add([Addition(draft, "") for draft in drafts], "d", clock.now())
        for number in range(count):
            sent = {"sent": Moment("b", 1.0), "submitted_at": clock.now(), "since": clock.now(), "due_at": None}
            task = await store.claim_queued(
                name, clock.now(), 9**9, lambda task, sent=sent: replace(task, state=State.SUBMITTING, **sent)
            )
            running = replace(task, state=State.RUNNING, remote_id=f"u-{number:03}", due_at=clock.now())
            assert await store.settle(task, running) == "done"
        limiters = {endpoint: Limiter(SlidingWindow(rate), anyio.current_time) for endpoint in ("submit", "query")}
        made = pipeline(
            spec,
            provider,
            None,
            limiters,
            store=store,
            clock=clock,
            notifier=notifier,
            policy=RetryPolicy(first_poll=first_poll),
            proved=True,
        )

        async def broken(batch, error):
            raise error

        async with anyio.create_task_group() as group:
            poll = PollStage(made.session, made.settlement, made.schedule, [operation])
            group.start_soon(made.stage(poll, broken).run)
            yield made, provider
            group.cancel_scope.cancel()
    finally:
        await store.aclose()


async def calls(provider, count):
    """The first calls that were made."""
    with anyio.fail_after(10):
        while len(provider.asked) < count:
            provider.polled = anyio.Event()
            await provider.polled.wait()
    return provider.asked[:count]


async def test_a_call_is_full_and_the_rest_follows(tmp_path):
    async with polling(tmp_path, 70) as (_, provider):
        first, second = await calls(provider, 2)
    assert (len(first), first[0]) == (50, "u-000")
    assert {*first, *second} == {f"u-{number:03}" for number in range(70)}


@pytest.mark.slow
async def test_a_call_that_waited_polls_what_became_due_meanwhile(tmp_path):
    async with polling(tmp_path, 2, rate=1.0) as (made, provider):
        await calls(provider, 1)
        (late,) = [task for task in await made.settlement.store.in_state(State.RUNNING) if task.remote_id == "u-001"]
        assert await made.settlement.store.settle(late, replace(late, due_at=None)) == "done"
        with anyio.fail_after(5):
            while not made.session.limiters["query"]._queue:  # noqa: ASYNC110 - a limiter notifies no test
                await anyio.sleep(0.01)
        assert await made.settlement.store.settle(late, replace(late, due_at=made.session.clock.now())) == "done"
        (_, second) = await calls(provider, 2)
    assert second == ["u-000", "u-001"]


async def test_an_ended_task_is_settled_and_not_polled_again(tmp_path):
    async with polling(tmp_path, 5) as (made, provider):
        provider.ended = {"u-001", "u-003"}
        await calls(provider, 1)
        later = (await calls(provider, 4))[-1]
        assert later == ["u-000", "u-002", "u-004"]
        assert (await made.settlement.store.counts()) == {"running": 3, "failed": 2}
        assert "2" in repr(made.schedule)


@pytest.mark.slow
async def test_a_dead_session_polls_nothing_and_returns_its_permit(tmp_path):
    async with polling(tmp_path, 2, rate=1.0) as (made, provider):
        await calls(provider, 1)
        made.session.dead = True
        with anyio.fail_after(5):
            permit = await made.session.limiters["query"].acquire()
        permit.release()
    assert len(provider.asked) == 1


@pytest.mark.parametrize("name", ["kling"])
async def test_calls_about_single_tasks_go_side_by_side(tmp_path, name):
    async with polling(tmp_path, 6, name=name) as (_, provider):
        asked = await calls(provider, 6)
    assert sorted(id_ for (id_,) in asked) == [f"u-{number:03}" for number in range(6)]


async def test_the_first_poll_of_a_task_follows_what_was_learned(tmp_path):
    async with polling(tmp_path, 1, first_poll=0.5) as (made, _):
        (task,) = await made.settlement.store.in_state(State.RUNNING)
        now = made.session.clock.now()
        for number in range(300):
            made.schedule.record_end(replace(task, id=1000 + number, submitted_at=now), now + 20.0)
        sending = replace(task, state=State.SUBMITTING, remote_id=None, due_at=None)
        assert await made.settlement.store.settle(task, sending) == "done"
        accepted = await made.settlement.settle(sending, Accepted("u-9", "http 200"))
        assert 7.0 < accepted.due_at - now < 11.0
