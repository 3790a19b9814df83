"""A run ends when it was told to, whatever waits: a provider that never ends, a file that never comes, a limit."""

from __future__ import annotations

import json
import time

import pytest

import runner
from runner.errors import UsageError
from tests.odd_gateway import Gateway, job


def says_running(task):
    return 200, {"code": 0, "data": {"task_id": task, "task_status": "processing"}}


@pytest.mark.slow
@pytest.mark.parametrize("place", ["argument", "manifest"])
def test_paid_tasks_wait_for_the_next_run(tmp_path, place):
    limits = {"qps": 50, **({"end": "2s"} if place == "manifest" else {})}
    with Gateway(poll=says_running).serving() as gateway:
        began = time.monotonic()
        result = runner.run(job(gateway, tmp_path, 2, limits=limits), **({"until": 2.0} if place == "argument" else {}))
        assert 1.9 < time.monotonic() - began < 8
        assert (result.exit_code, result.counts) == (5, {"running": 2})
        assert "2 not finished at the end of the run" in result.describe()
        lines = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
        assert [line["remote_id"] for line in lines] == ["t1", "t2"]
        gateway.poll = lambda _: None
        again = runner.run(job(gateway, tmp_path, 2))
    assert (again.exit_code, again.counts, gateway.posts) == (0, {"done": 2}, 2)


@pytest.mark.slow
def test_answer_on_the_wire_is_waited_for_until_the_end(tmp_path):
    """Submits stop a little before the end, so that those on the wire still deliver their ids."""

    def slow(_):
        time.sleep(0.6)

    with Gateway(slow, says_running).serving() as gateway:
        result = runner.run(job(gateway, tmp_path, 12), until=4.0)
    assert result.exit_code == 5
    assert set(result.counts) == {"running", "queued"}
    assert gateway.posts == result.counts["running"], "no answer was given up"


@pytest.mark.slow
def test_run_that_is_done_before_has_no_other_end(tmp_path):
    with Gateway().serving() as gateway:
        result = runner.run(job(gateway, tmp_path, 2), until="23:59", deadline="1h")
    assert (result.exit_code, result.counts) == (0, {"done": 2})


def test_end_that_is_none_is_refused(tmp_path):
    with Gateway().serving() as gateway, pytest.raises(UsageError, match=r"until: expected an end.*06:30"):
        runner.run(job(gateway, tmp_path), until="25:00")
    with pytest.raises(runner.ManifestError, match=r"limits\.end: expected an end"):
        job(gateway, tmp_path, limits={"end": "soon"})
