"""`export`: results for other programs."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sys
from dataclasses import replace

import pytest

from runner.lifecycle.task import Draft, State
from runner.report import results
from runner.store.adding import Addition
from runner.store.store import Store
from runner.store.view import view

MANIFEST = "version: 1\nprovider: chanjing\nmodel: kling-v2-1\nparams: {prompt: a heron}\n"


def addition(number: int) -> Addition:
    request = {"ref_prompt": f"={number}"}
    key = f"a{number:07x}".ljust(32, "0")  # a reference holds the first 20 digits
    return Addition(Draft(key, number, 1, {"鸟": "鹭"}, "chanjing", "image", "kling-v2-1", request, f"{number}"), "")


async def add_three_tasks(directory) -> None:
    """Add two queued tasks and a failed one to a store."""
    store = await Store.open(directory)
    try:
        await store.add([addition(number) for number in (1, 2, 3)], "digest", 1.0)
        (task,) = await store.by_key(addition(2).draft.key)
        assert await store.settle(task, replace(task, state=State.FAILED, due_at=None)) == "done"
    finally:
        await store.aclose()


@pytest.fixture
def job(desk):
    desk.write("job.yaml", MANIFEST)
    asyncio.run(add_three_tasks(desk.root / "out/job/.runner"))
    return desk


def expected(job) -> list[dict]:
    with view(job.root / "out/job/.runner") as opened:
        return [json.loads(json.dumps(results.line(row))) for row in opened.results()]


def test_stdout_gets_jsonl(job):
    done = job.run("export", "job.yaml")
    assert (done.code, done.err) == (0, "")
    assert [json.loads(line) for line in done.out.splitlines()] == expected(job)
    assert len(expected(job)) == 3


def test_file_suffix_selects_the_format(job):
    assert job.run("export", "job.yaml", "-o", "all.CSV").out == "all.CSV: 3 tasks as csv\n"
    with (job.root / "all.CSV").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["request.ref_prompt"] for row in rows] == ["'=1", "'=2", "'=3"]
    assert [row["key"] for row in rows] == [line["key"] for line in expected(job)]
    job.run("export", "job.yaml", "--format", "jsonl", "-o", "odd.csv")
    assert [json.loads(line) for line in (job.root / "odd.csv").read_text().splitlines()] == expected(job)


def test_job_directory_is_accepted(job):
    printed = job.run("export", "out/job", "--format", "csv").out.removeprefix("\ufeff")
    assert [row["vars.鸟"] for row in csv.DictReader(io.StringIO(printed))] == ["鹭"] * 3
    assert job.run("export", "job.yaml", "--out", "out/job").out.count("\n") == 3


def test_state_option_filters_tasks(job):
    assert job.run("export", "job.yaml", "--state", "done").out == ""
    assert [
        json.loads(line)["index"] for line in job.run("export", "job.yaml", "--state", "failed").out.splitlines()
    ] == [2]
    assert job.run("export", "job.yaml", "--state", "failed", "--state", "queued").out.count("\n") == 3
    wrong = job.run("export", "job.yaml", "--state", "finished")
    assert (wrong.code, "'in_doubt'" in wrong.err) == (2, True)


@pytest.mark.parametrize("target", ["job.yaml", "rows.csv", "image", "."])
def test_file_that_is_no_export_is_kept(job, target):
    job.write("rows.csv", "bird\nheron\n")
    (job.root / "image").write_bytes(b"\x89PNG")
    before = (job.root / target).read_bytes() if target != "." else b""
    refused = job.run("export", "job.yaml", "-o", target)
    assert (refused.code, "is no export" in refused.err) == (2, True)
    assert target == "." or (job.root / target).read_bytes() == before


def test_earlier_export_is_overwritten(job):
    for kind in ("csv", "jsonl", "csv"):
        assert job.run("export", "job.yaml", "--format", kind, "-o", "out.txt").code == 0
    assert (job.root / "out.txt").read_bytes().startswith(b"\xef\xbb\xbfkey,")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("none.yaml",), 10, "no such manifest"),
        ((".",), 10, "there is no job"),
        (("job.yaml", "-o", "nowhere/a.csv"), 2, "no directory nowhere"),
        (("job.yaml", "-o", "/proc/a.csv"), 14, "what was there is untouched"),
    ],
)
def test_errors_are_reported(job, words, code, message):
    refused = job.run("export", *words)
    assert (refused.code, message in refused.err) == (code, True), refused.err


def test_missing_pyarrow_is_reported(job, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    refused = job.run("export", "job.yaml", "-o", "a.parquet")
    assert (refused.code, 'pip install "genrunner[parquet]"' in refused.err) == (7, True)
    assert not (job.root / "a.parquet").exists()


def test_parquet_goes_to_a_file_only(job):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
    assert job.run("export", "job.yaml", "-o", "a.parquet").code == 0
    assert parquet.read_table(job.root / "a.parquet")["key"].to_pylist() == [line["key"] for line in expected(job)]
    assert job.run("export", "job.yaml", "--format", "parquet").code == 2
