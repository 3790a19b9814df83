"""What a plan reports of each task, and when."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from runner.app import plan_job
from runner.app.plan_job import PlanBuilder
from runner.manifest.model import Matrix
from runner.store.store import Store
from runner.store.task_rows import Addition
from runner.tasks.models import Draft


def draft(number: int, prompt: str) -> Draft:
    key = prompt.encode().hex().ljust(32, "0")
    return Draft(key, number, 1, {"n": number}, "kling", "image", "kling-v2-1", {"prompt": prompt}, prompt)


@pytest.fixture
async def planned(tmp_path):
    """Plan drafts for a job that has `old` at 1 and `kept` at 2: reports before and after `finish`, and the plan."""
    store = await Store.open(tmp_path / ".runner")
    await store.add([Addition(draft(1, "old"), ""), Addition(draft(2, "kept"), "")], "digest", 1.0)
    await store.aclose()
    parsed = SimpleNamespace(manifest=SimpleNamespace(directory=tmp_path, cost=4.0, items=None, matrix=Matrix()))

    def planned(*prompts: str) -> tuple[list[dict], list[dict], PlanBuilder]:
        lines: list[dict] = []
        made = PlanBuilder(0, None, in_sandbox=False, on_task=lines.append)
        for number, prompt in enumerate(prompts, start=1):
            made.add(parsed, draft(number, prompt))
        before = list(lines)
        made.finish()
        return before, lines, made

    return planned


def test_tasks_keep_their_order_and_name_changes(planned):
    before, lines, _ = planned("fresh", "kept", "new")
    assert before == []
    assert [(line["name"], line["plan"]) for line in lines] == [("fresh", "changed"), ("kept", "kept"), ("new", "new")]
    assert (lines[0]["fields"], lines[0]["was"], lines[0]["was_state"]) == (["prompt"], draft(1, "old").key, "queued")


def test_large_job_is_reported_at_once(planned, monkeypatch):
    monkeypatch.setattr(plan_job, "_MAX_REMEMBERED", 1)
    before, lines, made = planned("fresh", "kept", "new")
    assert [line["plan"] for line in before] == ["new", "kept", "new"]
    assert lines == before
    assert [change.old_key for change in made.changes] == [draft(1, "old").key]
