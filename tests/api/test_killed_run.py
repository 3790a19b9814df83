"""A run after one that was killed with requests on the wire, at a provider that keeps no record."""

from __future__ import annotations

import contextlib

import pytest

import runner
from runner.store.store import Store


@pytest.mark.parametrize("killed", [3, 8])
async def test_doubts_of_a_killed_process_stop_no_submits(box, killed):
    """They are held, since nothing can tell; the end of our process is no sign of a provider that loses answers."""
    values = box.values(12) | {"provider": "kling-gateway", "model": "image/kling-v1-5", "cost": 1}
    job = runner.Job(values, out=box.root / "job", env=box.env)
    first = await runner.arun(job, deadline=0)
    assert (first.exit_code, first.counts) == (5, {"queued": 12})
    store = await Store.open(first.directory / ".runner")
    query = (
        f"update task set state = 'submitting', due_at = null, sent_boot = 'b', sent_seconds = 1 where id <= {killed}"
    )
    async with contextlib.aclosing(store):
        await store._writer.transact(lambda connection: connection.execute(query) and None)
    second = await runner.arun(job)
    assert (second.exit_code, second.counts) == (4, {"held": killed, "done": 12 - killed})
    assert box.paid_once(12 - killed)


async def test_answers_lost_in_the_same_run_still_stop_submits(box):
    box.sandbox.change(faults={"http_500_after": 1.0})
    values = box.values(12) | {"provider": "kling-gateway", "model": "image/kling-v1-5", "cost": 1}
    result = await runner.arun(runner.Job(values, out=box.root / "job", env=box.env))
    assert (result.exit_code, set(result.counts)) == (4, {"held", "queued"})
    assert result.counts["held"] <= 8
