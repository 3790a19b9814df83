import asyncio
import json

import pytest

from runner.sandbox.limits import peak_within
from runner.sandbox.server import Options, Sandbox

KLING = {"model_name": "kling-v2-1", "prompt": "boat", "n": 2, "external_task_id": "e-1"}


async def test_ledger_file_restores_tasks(api, http, tmp_path, clock):
    options = Options(ledger=tmp_path / "ledger.jsonl", seconds=(10, 10), concurrency=2)
    async with Sandbox(options, clock=clock) as sandbox:
        user = api(sandbox)
        await user.login()
        task_id = (await user.submit(number_of_images=2))["data"]
        await user.kling("/v1/images/generations", KLING)
        before = sandbox.ledger.accepted
    clock.now += 5
    async with Sandbox(options, clock=clock) as sandbox:
        user = api(sandbox)
        await user.login()
        assert sandbox.ledger.accepted == before
        assert sandbox.ledger.charges() == 4
        assert (await user.task(task_id))["data"]["progress_desc"] == "Generating"
        assert (await user.kling("/v1/images/generations", KLING)).json()["code"] == 1201
        assert (await user.kling("/v1/images/generations", {"prompt": "x"})).json()["code"] == 1303
        clock.now += 5
        url = (await user.task(task_id))["data"]["output_url"][1]
        assert (await http.get(url)).content.startswith(b"\x89PNG")
        assert (await user.kling("/v1/images/generations", {"prompt": "x"})).json()["code"] == 0
        assert [task.number for task in sandbox.ledger.accepted] == [1, 2, 3]


async def test_truncated_line_is_dropped(api, tmp_path):
    path = tmp_path / "ledger.jsonl"
    for expected in (1, 2):
        async with Sandbox(Options(ledger=path)) as sandbox:
            user = api(sandbox)
            await user.login()
            await user.submit()
            assert len(sandbox.ledger.accepted) == expected
        with path.open("ab") as file:
            file.write(b'{"number": 9, "id": "half')


async def test_line_is_written_before_response(api, tmp_path):
    path = tmp_path / "ledger.jsonl"
    async with Sandbox(Options(ledger=path)) as sandbox:
        user = api(sandbox)
        await user.login()
        task_id = (await user.submit())["data"]
        record = json.loads(path.read_text())
        assert (record["id"], record["provider"], record["operation"]) == (task_id, "chanjing", "image")
        assert record["request"]["ref_prompt"] == "纸船 paper boat"


async def test_ledger_and_stats_are_served_over_http(api, http):
    async with Sandbox() as sandbox:
        user = api(sandbox)
        await user.login()
        await user.submit()
        await user.submit()
        await user.submit(number_of_images=9)
        shown = (await http.get(f"{sandbox.url}/_sandbox/ledger")).json()
        stats = shown["stats"]
        assert [task["number"] for task in shown["accepted"]] == [1, 2]
        assert (stats["accepted"], stats["charges"], stats["duplicates"]) == (2, 2, 1)
        assert stats["refused"] == {"40000": 1}
        assert stats["requests"]["POST /open/v1/ai_creation/task/submit"] == 3
        assert stats["tokens_issued"] == 1
        assert [len(group) for group in sandbox.ledger.by_request().values()] == [2]
        later = (await http.get(f"{sandbox.url}/_sandbox/ledger", params={"after": 1})).json()
        assert [task["number"] for task in later["accepted"]] == [2]
        assert (await http.get(f"{sandbox.url}/_sandbox/stats")).json()["accepted"] == 2


async def test_long_texts_are_recorded_by_hash(api):
    async with Sandbox() as sandbox:
        body = {"prompt": "x", "image": "A" * 100_000, "image_list": ["B" * 100_000]}
        await api(sandbox).kling("/v1/images/generations", body)
        assert len(json.dumps(sandbox.ledger.accepted[0].request)) < 1000


@pytest.mark.slow
async def test_hundred_concurrent_submits_are_hundred_tasks(api):
    async with Sandbox() as sandbox:
        user = api(sandbox)
        await user.login()
        ids = [reply["data"] for reply in await asyncio.gather(*(user.submit() for _ in range(100)))]
        assert len(set(ids)) == len(sandbox.ledger.accepted) == 100


def test_peak_is_largest_count_in_any_window():
    assert peak_within([], 1) == 0
    assert peak_within([0, 0.5, 1, 1.4, 1.45, 3], 1) == 4
    assert peak_within([0, 1, 2], 1) == 1
