"""Money: paid tasks are finished, unchanged tasks are not bought again, and no loop buys indefinitely."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.app import job
from runner.errors import JobLockedError
from runner.scheduler.spending import Spending
from runner.settings import Settings
from runner.tasks.events import Retried
from runner.tasks.models import State, Task, TaskError
from runner.tasks.retry_policy import RetryPolicy
from runner.tasks.transitions import advance

from .chain import chain


async def test_fm01_empty_balance_stops_submits_and_finishes_paid(tmp_path):
    """A balance that ends in mid-batch stops submits, and what is paid is finished."""
    async with chain(tmp_path, credit=4, workers=1, prior=False) as ours:
        result = await ours.run(6, images=2)
        assert (result.exit, result.states) == (6, ["done"] * 2 + ["queued"] * 4)
        assert ours.middle.calls["submit"] == 3
        assert len(ours.files) == 4
        ours.sandbox.change(credit=100)
        ours.paid_once(await ours.run(6, images=2), 6)


# FM3: a manifest that is edited


def manifest(rows, edit):
    """Return a manifest of these subjects. `edit` is everything that may change without changing a task."""
    return {
        "version": 1,
        "provider": "kling",
        "model": "image/kling-v2-1",
        "params": {"prompt": "{{ subject }}, {{ style }}", "aspect_ratio": "1:1"},
        "items": [{**row, **({"note": edit["note"]} if edit["note"] else {})} for row in rows],
        "output": {"dir": "out", "name": edit["name"]},
        "limits": {"qps": edit["qps"]},
    }


SUBJECTS = st.lists(
    st.fixed_dictionaries({"subject": st.sampled_from("abcdefgh"), "style": st.sampled_from(["ink", "oil"])}),
    min_size=1,
    max_size=6,
    unique_by=lambda row: (row["subject"], row["style"]),
)
EDITS = st.fixed_dictionaries(
    {
        "note": st.sampled_from(["", "x", "y"]),
        "name": st.sampled_from(["{{ index }}", "{{ subject }}-{{ style }}-{{ index }}"]),
        "qps": st.integers(1, 9),
    }
)


def keys(path, document):
    """Return every task's request and its key."""
    path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    found = [addition.draft for addition in job.load(path, Settings({})).additions()]
    return {json.dumps(draft.request, sort_keys=True): draft.key for draft in found}


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=SUBJECTS, after=SUBJECTS, edits=st.tuples(EDITS, EDITS))
def test_fm03_task_is_bought_again_only_if_request_changed(tmp_path, before, after, edits):
    """After any edit, two tasks have the same key exactly if their requests are equal."""
    old = keys(tmp_path / "job.yaml", manifest(before, edits[0]))
    new = keys(tmp_path / "job.yaml", manifest(after, edits[1]))
    for request, key in new.items():
        assert (old.get(request) == key) == (request in old)
        assert request in old or key not in old.values()


def test_fm05_purchases_of_one_task_are_capped():
    task = Task(1, "k" * 32, "kling", "image", "m", State.FAILED, None, ref="r0-1-g1", error=TaskError("provider"))
    for _ in range(1000):
        task = replace(advance(task, Retried(), 0.0, RetryPolicy()), state=State.FAILED)
    assert task.generation < 1000


async def test_fm02_unreachable_account_leaves_nothing_in_doubt(tmp_path, monkeypatch):
    """Nothing was sent when the day's spending could not be counted, so no task is held."""

    async def held_by_another(*_):
        raise JobLockedError("jobs.db: held by another program for too long")

    async with chain(tmp_path, "kling-gateway", cost=4.0) as ours:
        with monkeypatch.context() as patch:
            patch.setattr(Spending, "reserve", held_by_another)
            with pytest.raises(JobLockedError):
                await ours.run(2)
        ours.paid_once(await ours.run(2), 2)
