"""Large jobs: tasks are added in pages while the first ones are bought; what is checked is not checked again."""

from __future__ import annotations

import asyncio
import json
import shutil
from contextlib import suppress

import anyio
import pytest

import runner
from runner.app import enqueue, run_context
from runner.store.store import Store

TASKS = 20


@pytest.fixture
def pages(monkeypatch):
    """Add tasks in pages of three, the first four before anything is bought."""
    monkeypatch.setattr(run_context, "PAGED_FROM", 10)
    monkeypatch.setattr(enqueue, "_FIRST_PAGE", 4)
    monkeypatch.setattr(enqueue, "_PAGE", 3)
    return monkeypatch


def stop_adding(pages, after: int) -> None:
    """Let no more than this number of pages in."""
    added, add = [], Store.add_page

    async def add_page(store, page, now, **keys):
        if len(added) == after:
            await anyio.sleep_forever()
        added.append(page)
        await add(store, page, now, **keys)

    pages.setattr(Store, "add_page", add_page)


async def buy_some(job, box, upto: int) -> None:
    """Run the job until this number was accepted, and interrupt it."""
    run = asyncio.create_task(runner.arun(job))
    with anyio.fail_after(20):
        while len(box.accepted) < upto:  # noqa: ASYNC110 - there is nothing to wait for
            await anyio.sleep(0.01)
    run.cancel()
    with suppress(asyncio.CancelledError):
        await run


def test_pages_are_added_in_order_and_bought_once(box, pages):
    result = runner.run(box.job(TASKS))
    assert (result.exit_code, result.counts) == (0, {"done": TASKS})
    assert [task.vars["subject"] for task in result.tasks()] == [f"job {number}" for number in range(TASKS)]
    assert runner.run(box.job(TASKS)).summary["submitted"] == 0
    assert box.paid_once(TASKS)


async def test_interrupted_job_counts_and_adds_the_rest(box, pages):
    job = box.job(TASKS)
    with pages.context() as patch:
        stop_adding(patch, 3)
        await buy_some(job, box, 5)
        stored = runner.open_job(job.directory)
        assert sum(stored.counts.values()) == TASKS, "what is not in yet is still to be bought"
        assert len(list(stored.tasks())) == 4 + 2 * 3
    result = await runner.arun(job)
    assert (result.exit_code, result.counts) == (0, {"done": TASKS})
    assert box.paid_once(TASKS)


async def test_another_manifest_is_added_at_once(box, pages):
    """Only all of its tasks show which of those that were bought are asked for again."""
    with pages.context() as patch:
        stop_adding(patch, 3)
        await buy_some(box.job(TASKS), box, 5)
    bought = len(box.accepted)
    values = box.values(TASKS)
    values["items"] = [{"subject": "new"}, *values["items"]]
    result = await runner.arun(runner.Job(values, out=box.root / "job", env=box.env))
    assert (result.exit_code, result.counts) == (0, {"done": TASKS + 1})
    assert bought < len(box.accepted)
    assert box.paid_once(TASKS + 1)


async def test_pages_are_compared_with_what_was_bought_elsewhere(box, pages):
    earlier = box.values(12)
    assert (await runner.arun(runner.Job(earlier, out=box.root / "other", env=box.env))).exit_code == 0
    values = {**box.values(TASKS), "name": "later"}
    result = await runner.arun(runner.Job(values, out=box.root / "later", env=box.env))
    assert (result.exit_code, result.counts) == (0, {"done": TASKS})
    assert result.summary["submitted"] == TASKS - 12
    assert box.paid_once(TASKS)


def put_back(kept, place) -> None:
    """Write the content of every kept file over the file that is there, and remove the others."""
    for file in sorted(place.rglob("*"), reverse=True):
        if file.is_file() and not (kept / file.relative_to(place)).exists():
            file.unlink()
    for file in kept.rglob("*"):
        if file.is_file():
            (place / file.relative_to(kept)).parent.mkdir(parents=True, exist_ok=True)
            (place / file.relative_to(kept)).write_bytes(file.read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize(("provider", "model"), [("chanjing", "kling-v2-1"), ("kling", "image/kling-v2-1")])
async def test_backup_of_the_middle_of_adding_buys_nothing_twice(box, pages, provider, model):
    """Tasks were bought that the state does not even have: job and account are as old, and no file shows it."""
    values = {**box.values(TASKS), "provider": provider, "model": model}
    job = runner.Job(values, out=box.root / "job", env=box.env)
    with pages.context() as patch:
        stop_adding(patch, 2)
        await buy_some(job, box, 5)
    for name in ("job", "home"):
        shutil.copytree(box.root / name, box.root / f"kept {name}")
    await buy_some(job, box, 15)
    bought = len(box.accepted)
    for name in ("job", "home"):
        put_back(box.root / f"kept {name}", box.root / name)
    result = await runner.arun(job)
    assert (result.exit_code, result.counts) == (0, {"done": TASKS})
    assert bought > 10, "more than the tasks of the first pages"
    assert box.paid_once(TASKS)


@pytest.fixture
def manifest(box):
    """Write a manifest over a table."""
    rows = box.root / "rows.csv"
    rows.write_text("subject\n" + "".join(f"row {number}\n" for number in range(TASKS)))
    path = box.root / "job.yaml"
    values = {key: value for key, value in box.values().items() if key != "items"}
    path.write_text(json.dumps({"version": 1, **values, "items": {"file": "rows.csv"}}))
    return path


async def test_table_that_changes_while_it_is_added_ends_the_run(box, pages, manifest):
    job = runner.load(manifest, env=box.env)
    add, added = Store.add_page, []

    async def add_page(store, page, now, **keys):
        added.append(page)
        await add(store, page, now, **keys)
        if len(added) == 2:
            (box.root / "rows.csv").write_text("subject\n" + "other row\n" * TASKS)

    pages.setattr(Store, "add_page", add_page)
    result = await runner.arun(job)
    assert result.exit_code == 5
    assert any("rows.csv has changed while its rows were added" in reason for reason in result.reasons)
    assert len(box.accepted) == 7


def test_unchanged_manifest_is_not_expanded_to_be_checked(box, manifest):
    def is_known(**options) -> bool:
        return runner.load(manifest, env=box.env, **options).loaded.was_known

    assert not is_known()
    result = runner.run(runner.load(manifest, env=box.env))
    assert result.exit_code == 0
    assert is_known()
    assert runner.load(manifest, env=box.env).task_count == TASKS
    assert not is_known(out=box.root / "elsewhere")
    with (box.root / "rows.csv").open("a") as rows:
        rows.write("one more\n")
    assert not is_known()
    assert runner.load(manifest, env=box.env).task_count == TASKS + 1
    assert runner.run(runner.load(manifest, env=box.env)).counts == {"done": TASKS + 1}
    assert is_known()
    manifest.write_text(manifest.read_text().replace("1:1", "9:9"))
    with pytest.raises(runner.ManifestError):
        is_known()


@pytest.mark.parametrize(
    "stored",
    [b"[]", b"{", b'{"summary": []}', b'{"digest": "x", "basis": "y", "has_prices": 1, "summary": {"tasks": 1}}'],
)
def test_damaged_record_of_a_check_is_no_record(box, manifest, stored):
    job = runner.load(manifest, env=box.env)
    assert runner.run(job).exit_code == 0
    path = job.directory / ".runner" / "checked.json"
    whole = json.loads(path.read_bytes())
    damaged = json.dumps({**whole, "summary": {**whole["summary"], "by_provider": []}}).encode()
    for content in (stored, damaged):
        path.write_bytes(content)
        loaded = runner.load(manifest, env=box.env).loaded
        assert (loaded.was_known, loaded.summary.tasks) == (False, TASKS)
