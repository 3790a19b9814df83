"""Submits and downloads on a disk that fills up."""

from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest

from runner.errors import DiskError
from runner.net.disk_space import RESERVE, FreeSpace
from runner.net.partial_file import disk_errors
from runner.providers import spec as specs
from runner.providers.requests import Reply
from runner.ratelimit.limiter import Limiter
from runner.ratelimit.window import SlidingWindow
from runner.scheduler.clock import Clock
from runner.scheduler.stage import Notifier
from runner.store.store import Store
from runner.store.task_rows import Addition
from runner.tasks.events import Finished
from runner.tasks.models import Draft, Output, State
from runner.tasks.retry_policy import RetryPolicy
from tests.pipelines import pipeline

LINK = (Output(1, "https://files.example/1.png"),)


class Provider:
    """Takes whatever is sent."""

    def __init__(self):
        self.taken = 0

    async def send(self, request, permit=None):
        permit.sent(anyio.current_time())
        self.taken += 1
        return Reply(200, {"code": 0, "data": f"u-{self.taken}"})


class Disk:
    """A disk with so many free bytes."""

    left = 10 * RESERVE


class Scene:
    """A pipeline over a real store."""

    def __init__(self, parts, provider, directory, disk_, warnings):
        self.parts, self.provider, self.directory, self.disk, self.warnings = (
            parts,
            provider,
            directory,
            disk_,
            warnings,
        )
        self.session, self.capacity, self.store = parts.session, parts.session.capacity, parts.settlement.store

    def stages(self):
        return [stage.run for stage in self.parts.stages([State.READY], self.directory, self.broken)]

    async def until(self, holds):
        with anyio.fail_after(10):
            while not holds():  # noqa: ASYNC110 - no notification tells
                await anyio.sleep(0.01)

    async def broken(self, batch, error):
        raise error


@asynccontextmanager
async def scene(directory, count, downloader=None):
    clock, notifier, spec, provider = Clock(), Notifier(), specs.load("chanjing"), Provider()
    store = await Store.open(directory / ".runner")
    try:
        drafts = [
            Draft(f"{n:08x}".ljust(32, "0"), n + 1, 1, {}, "chanjing", "image", "kling-v2-1", {}, f"n{n}")
            for n in range(count)
        ]
        await store.add([Addition(draft, "") for draft in drafts], "d", clock.now())
        warnings = []
        limiters = {endpoint: Limiter(SlidingWindow(100.0), anyio.current_time) for endpoint in ("submit", "query")}
        disk_ = Disk()
        parts = pipeline(
            spec,
            provider,
            downloader,
            limiters,
            store=store,
            clock=clock,
            notifier=notifier,
            policy=RetryPolicy(),
            proved=True,
            space=FreeSpace(directory, lambda _: disk_.left),
            on_warning=warnings.append,
        )
        made = Scene(parts, provider, directory, disk_, warnings)
        yield made
    finally:
        await store.aclose()


def submit(made):
    async def bug(error):
        raise error

    return made.parts.submit_stage(bug)


@pytest.mark.slow
async def test_submits_wait_for_disk_space_and_then_go_on(tmp_path):
    async with scene(tmp_path, 6) as made, anyio.create_task_group() as group:
        made.disk.left = RESERVE + 3 * 4 * 2**20
        submits = submit(made)
        group.start_soon(submits.run)
        await made.until(lambda: made.warnings)
        assert made.provider.taken == 3, "three outputs fit"
        assert not made.capacity.disk_full
        made.disk.left = 10 * RESERVE
        await made.until(lambda: made.provider.taken == 6)
        assert len(made.warnings) == 1
        submits.stop(0)
        group.cancel_scope.cancel()


async def test_submits_end_where_nothing_under_way_can_free_space(tmp_path):
    async with scene(tmp_path, 2) as made, anyio.create_task_group() as group:
        made.disk.left = RESERVE
        submits = submit(made)
        group.start_soon(submits.run)
        await made.until(lambda: made.capacity.disk_full)
        assert made.provider.taken == 0
        kind, fault = made.session.blocked
        assert kind == "disk"
        assert "64 MB left: make room" in fault.message
        submits.stop(0)
        group.cancel_scope.cancel()


async def ready(made):
    """One task whose output waits to be downloaded."""
    store, now = made.store, made.session.clock.now()
    task = await store.claim_queued(
        "chanjing",
        now,
        9,
        lambda task: replace(
            task, state=State.SUBMITTING, sent=made.session.clock.moment(), submitted_at=now, since=now, due_at=None
        ),
    )
    running = replace(task, state=State.RUNNING, remote_id="u-9", due_at=now)
    assert await store.settle(task, running) == "done"
    return await made.parts.settlement.settle(running, Finished(LINK))


class Downloader:
    """Finds the disk as a real download would."""

    def __init__(self, errno):
        self.asked, self._errno = 0, errno

    async def fetch(self, url, part):
        self.asked += 1
        with disk_errors(part):
            raise OSError(self._errno, "said by the disk")


@pytest.mark.parametrize("way", ["below the mark", "in the middle"])
async def test_a_ready_task_waits_where_no_download_fits(tmp_path, way):
    downloader = Downloader(28)
    async with scene(tmp_path, 1, downloader) as made, anyio.create_task_group() as group:
        task = await ready(made)
        assert made.capacity.ready == 1
        made.disk.left = RESERVE if way == "below the mark" else 10 * RESERVE
        group.start_soon(*made.stages())
        await made.until(lambda: made.capacity.disk_full)
        assert downloader.asked == (way == "in the middle")
        assert await made.store.counts() == {"ready": 1}
        assert (await made.store.find_by_key_prefix(task.key))[0].failures == 0
        assert made.session.blocked[0] == "disk"
        group.cancel_scope.cancel()


async def test_a_broken_disk_ends_the_run(tmp_path):
    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012 - the group raises, not a line in it
        async with scene(tmp_path, 1, Downloader(5)) as made, anyio.create_task_group() as group:
            await ready(made)
            group.start_soon(*made.stages())
            await made.until(lambda: made.capacity.disk_full)
    assert caught.group_contains(DiskError)
