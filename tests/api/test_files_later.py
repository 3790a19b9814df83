"""Files whose host is away: a run ends with what is paid and not here, and every later run fetches it for nothing."""

from __future__ import annotations

import json

import pytest

import runner
from runner.scheduler import download
from runner.scheduler import run as scheduler_run
from runner.store.store import Store


@pytest.mark.slow
def test_run_ends_while_a_file_host_is_away_and_the_next_fetches(box, monkeypatch):
    monkeypatch.setattr(scheduler_run, "_FILES_WAIT", 1.5)
    # shorter than the wait, as it really is: else a download that is just being claimed looks like one for later
    monkeypatch.setattr(download, "_LEASE", 1.0)
    box.sandbox.change(faults={"reset_download": 1.0})
    first = runner.run(box.job())
    assert (first.exit_code, sum(first.counts.values())) == (5, 4)
    assert first.counts.keys() <= {"running", "ready"}
    assert any("wait for files: " in reason and "free of charge" in reason for reason in first.reasons)
    box.sandbox.change(faults={})
    second = runner.run(box.job())
    assert (second.exit_code, second.counts, second.summary["submitted"]) == (0, {"done": 4}, 0)
    assert box.paid_once(4)


async def test_stranded_files_are_taken_up_by_the_next_run(box):
    """For a dead link or a network, but not what a user has given up or the provider has lost."""
    result = await runner.arun(box.job())
    for path in result.directory.glob("*.png"):
        path.unlink()
    store = await Store.open(result.directory / ".runner")
    reasons = ["link_expired", "network", "stuck", "gone"]
    for number, reason in enumerate(reasons, start=1):
        query = f"update task set state = 'stranded', reason = '{reason}' where id = {number}"
        await store._writer.transact(lambda connection, query=query: connection.execute(query) and None)
    await store.aclose()
    result = await runner.arun(box.job())
    assert result.summary["submitted"] == 0
    lines = (result.directory / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["state"] for line in lines][:2] == ["done", "done"]
    assert box.paid_once(4)
