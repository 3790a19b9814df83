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


async def three(directory) -> None:
    """Two tasks that wait and one that failed."""
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
    asyncio.run(three(desk.root / "out/job/.runner"))
    return desk


def expected(job) -> list[dict]:
    with view(job.root / "out/job/.runner") as seen:
        return [json.loads(json.dumps(results.line(row))) for row in seen.results()]


def test_jsonl_is_what_a_pipe_gets(job):
    done = job.run("export", "job.yaml")
    assert (done.code, done.err) == (0, "")
    assert [json.loads(line) for line in done.out.splitlines()] == expected(job)
    assert len(expected(job)) == 3


def test_the_end_of_the_name_says_the_format(job):
    assert job.run("export", "job.yaml", "-o", "all.CSV").out == "all.CSV: 3 tasks as csv\n"
    with (job.root / "all.CSV").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["request.ref_prompt"] for row in rows] == ["'=1", "'=2", "'=3"]
    assert [row["key"] for row in rows] == [line["key"] for line in expected(job)]
    job.run("export", "job.yaml", "--format", "jsonl", "-o", "odd.csv")
    assert [json.loads(line) for line in (job.root / "odd.csv").read_text().splitlines()] == expected(job)


def test_a_directory_stands_for_its_job(job):
    printed = job.run("export", "out/job", "--format", "csv").out.removeprefix("\ufeff")
    assert [row["vars.鸟"] for row in csv.DictReader(io.StringIO(printed))] == ["鹭"] * 3
    assert job.run("export", "job.yaml", "--out", "out/job").out.count("\n") == 3


def test_states_are_chosen(job):
    assert job.run("export", "job.yaml", "--state", "done").out == ""
    assert [
        json.loads(line)["index"] for line in job.run("export", "job.yaml", "--state", "failed").out.splitlines()
    ] == [2]
    assert job.run("export", "job.yaml", "--state", "failed", "--state", "queued").out.count("\n") == 3
    wrong = job.run("export", "job.yaml", "--state", "finished")
    assert (wrong.code, "'in_doubt'" in wrong.err) == (2, True)


@pytest.mark.parametrize("target", ["job.yaml", "rows.csv", "picture", "."])
def test_what_is_no_export_is_not_written_over(job, target):
    job.write("rows.csv", "bird\nheron\n")
    (job.root / "picture").write_bytes(b"\x89PNG")
    before = (job.root / target).read_bytes() if target != "." else b""
    refused = job.run("export", "job.yaml", "-o", target)
    assert (refused.code, "is no export" in refused.err) == (2, True)
    assert target == "." or (job.root / target).read_bytes() == before


def test_an_export_is_written_over(job):
    for kind in ("csv", "jsonl", "csv"):
        assert job.run("export", "job.yaml", "--format", kind, "-o", "out.txt").code == 0
    assert (job.root / "out.txt").read_bytes().startswith(b"\xef\xbb\xbfkey,")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("none.yaml",), 10, "no such manifest"),
        ((".",), 10, "there is no job"),
        (("job.yaml", "-o", "nowhere/a.csv"), 2, "no directory nowhere"),
        (("job.yaml", "-o", "/proc/a.csv"), 14, "what was there is untouched"),
    ],
)
def test_what_cannot_be_is_told(job, words, code, said):
    refused = job.run("export", *words)
    assert (refused.code, said in refused.err) == (code, True), refused.err


def test_parquet_says_what_it_needs(job, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as where it is not installed
    refused = job.run("export", "job.yaml", "-o", "a.parquet")
    assert (refused.code, 'pip install "genrunner[parquet]"' in refused.err) == (7, True)
    assert not (job.root / "a.parquet").exists()


def test_parquet_is_whole_and_not_for_a_pipe(job):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
    assert job.run("export", "job.yaml", "-o", "a.parquet").code == 0
    assert parquet.read_table(job.root / "a.parquet")["key"].to_pylist() == [line["key"] for line in expected(job)]
    assert job.run("export", "job.yaml", "--format", "parquet").code == 2
