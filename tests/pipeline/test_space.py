"""Submits and downloads on a disk that grows small (FD2)."""

from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest

from runner.errors import DiskError
from runner.lifecycle.events import Finished
from runner.lifecycle.patience import Patience
from runner.lifecycle.task import Draft, Output, State
from runner.net.bucket import Bucket
from runner.net.limiter import Limiter, Window
from runner.net.part import disk
from runner.net.space import RESERVE, Space
from runner.pipeline.bell import Bell
from runner.pipeline.clock import Clock
from runner.pipeline.fetch import Fetch
from runner.pipeline.lane import Lane
from runner.pipeline.submit import Submit
from runner.providers import spec as specs
from runner.providers.dialect import Dialect
from runner.providers.exchange import Reply
from runner.store.adding import Addition
from runner.store.store import Store

LINK = (Output(1, "https://files.example/1.png"),)


class Provider:
    """Takes whatever is sent."""

    def __init__(self):
        self.taken = 0

    async def send(self, request, permit=None):
        permit.sent(anyio.current_time())
        self.taken += 1
        return Reply(200, {"code": 0, "data": f"u-{self.taken}"})


class Scene:
    """A lane over a real store; `left` is what the disk has, `said` what a person hears."""

    def __init__(self, lane, provider, directory):
        self.lane, self.provider, self.directory = lane, provider, directory
        self.left, self.said = 10 * RESERVE, []

    async def until(self, holds):
        with anyio.fail_after(10):
            while not holds():  # noqa: ASYNC110 - what it waits for rings no bell
                await anyio.sleep(0.01)

    async def broken(self, batch, error):
        raise error


@asynccontextmanager
async def scene(directory, count, downloader=None):
    clock, bell, spec, provider = Clock(), Bell(), specs.load("chanjing"), Provider()
    store = await Store.open(directory / ".runner")
    try:
        drafts = [
            Draft(f"{n:08x}".ljust(32, "0"), n + 1, 1, {}, "chanjing", "image", "kling-v2-1", {}, f"n{n}")
            for n in range(count)
        ]
        await store.add([Addition(draft, "") for draft in drafts], "d", clock.now())
        lane = Lane(
            spec=spec,
            dialect=Dialect(spec),
            gateway=provider,
            downloader=downloader,
            limiters={endpoint: Limiter(Bucket(100.0), anyio.current_time) for endpoint in ("submit", "query")},
            window=Window(),
            patience=Patience(),
            store=store,
            clock=clock,
            bell=bell,
            on_change=lambda *_: None,
            emergency=lambda *_: None,
            proved=True,
        )
        made = Scene(lane, provider, directory)
        lane.space, lane.notice = Space(directory, lambda _: made.left), made.said.append
        yield made
    finally:
        await store.aclose()


def submit(made):
    async def bug(error):
        raise error

    return Submit(made.lane, bug)


async def test_submits_wait_while_what_is_under_way_takes_the_room_and_then_go_on(tmp_path):
    async with scene(tmp_path, 6) as made, anyio.create_task_group() as group:
        made.left = RESERVE + 3 * 4 * 2**20
        submits = submit(made)
        group.start_soon(submits.run)
        await made.until(lambda: made.said)
        assert made.provider.taken == 3, "three outputs fit"
        assert not made.lane.full
        made.left = 10 * RESERVE
        await made.until(lambda: made.provider.taken == 6)
        assert len(made.said) == 1
        submits.stop(0)
        group.cancel_scope.cancel()


async def test_where_nothing_is_under_way_that_could_make_room_submits_end(tmp_path):
    async with scene(tmp_path, 2) as made, anyio.create_task_group() as group:
        made.left = RESERVE
        submits = submit(made)
        group.start_soon(submits.run)
        await made.until(lambda: made.lane.full)
        assert made.provider.taken == 0
        kind, fault = made.lane.blocked
        assert kind == "disk"
        assert "64 MB left: make room" in fault.message
        submits.stop(0)
        group.cancel_scope.cancel()


async def ready(made):
    """One task whose output waits to be downloaded."""
    store, now = made.lane.store, made.lane.clock.now()
    task = await store.claim_queued(
        "chanjing",
        now,
        9,
        lambda task: replace(
            task, state=State.SUBMITTING, sent=made.lane.clock.moment(), submitted_at=now, since=now, due_at=None
        ),
    )
    running = replace(task, state=State.RUNNING, remote_id="u-9", due_at=now)
    assert await store.settle(task, running) == "done"
    return await made.lane.settle(running, Finished(LINK))


class Downloader:
    """Finds the disk as a real download would."""

    def __init__(self, errno):
        self.asked, self._errno = 0, errno

    async def fetch(self, url, part):
        self.asked += 1
        with disk(part):
            raise OSError(self._errno, "said by the disk")


@pytest.mark.parametrize("way", ["below the mark", "in the middle"])
async def test_what_is_ready_waits_where_no_download_fits(tmp_path, way):
    downloader = Downloader(28)
    async with scene(tmp_path, 1, downloader) as made, anyio.create_task_group() as group:
        task = await ready(made)
        assert made.lane.ready == 1
        made.left = RESERVE if way == "below the mark" else 10 * RESERVE
        group.start_soon(Fetch(made.lane, tmp_path).stage(("chanjing", State.READY), made.broken).run)
        await made.until(lambda: made.lane.full)
        assert downloader.asked == (way == "in the middle")
        assert await made.lane.store.counts() == {"ready": 1}
        assert (await made.lane.store.by_key(task.key))[0].failures == 0
        assert made.lane.blocked[0] == "disk"
        group.cancel_scope.cancel()


async def test_a_disk_that_is_broken_ends_the_run(tmp_path):
    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012 - the group raises, not a line in it
        async with scene(tmp_path, 1, Downloader(5)) as made, anyio.create_task_group() as group:
            await ready(made)
            group.start_soon(Fetch(made.lane, tmp_path).stage(("chanjing", State.READY), made.broken).run)
            await made.until(lambda: made.lane.full)
    assert caught.group_contains(DiskError)
