"""Provider semantics: whatever a provider reports of a task, it is paid once and nothing of it is lost."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import random
import re
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.providers.requests import Reply
from runner.providers.responses import read_page, read_query, read_reference, read_submit
from runner.providers.spec import load
from runner.sandbox.faults import Faults
from runner.tasks.events import (
    Accepted,
    AccountBlocked,
    Finished,
    Found,
    Interrupted,
    Missing,
    Pending,
    Rejected,
    RetryableFailure,
)
from runner.tasks.models import State
from runner.tasks.retry_policy import RetryPolicy
from tests.faults.conftest import images as manifest
from tests.faults.conftest import reaches, sandbox

from .chain import chain, request
from .server import answer, changed, first, instead

PROVIDERS = ("kling", "chanjing", "kling-gateway")
SHORT = RetryPolicy(quiet_time=0.3, first_poll=0.05, paid_timeout=0.6)
LATER = RetryPolicy(quiet_time=0.3, first_poll=0.05, paid_timeout=20.0, max_settlings=2, max_refreshes=3)


def shown(change):
    """Return a deed that changes the object of Kling's response about one task by `change(object)`."""

    def deed(body):
        if isinstance(body.get("data"), dict):
            change(body["data"])
        return body

    return changed(deed)


def status(word, **more):
    return shown(lambda task: task.update({"task_status": word, "task_result": {}, **more}))


# FV1 to FV3: states


@pytest.mark.slow
async def test_fv01_stuck_task_is_stranded_and_never_bought_again(tmp_path):
    """A stuck task is stranded, polled rarely and never bought again."""
    async with chain(tmp_path, seconds=(60.0, 60.0), policy=SHORT) as ours:
        result = await ours.run(3)
        assert (result.exit, result.states) == (3, ["stranded"] * 3)
        assert {task["reason"] for task in result.tasks} == {"stuck"}
        queries = ours.middle.calls["query"]
        assert queries <= 3 * 0.8 / 0.05, "twenty times a second at most, here"
        assert (await ours.run(3)).states == ["stranded"] * 3
        assert ours.middle.calls["query"] == queries + 3, "a stranded task is polled once in a run"
        assert ours.middle.calls["submit"] == 3
        ours.sandbox.change(seconds=[0, 0])  # it is finished after all, and the user retries
        ours.paid_once(await ours.run(3, retried=(State.STRANDED,)), 3)


async def test_fv02_backward_state_undoes_nothing(tmp_path):
    async with chain(tmp_path) as ours:
        ours.middle.deeds["file"] = {1: instead(answer("gone", 410), end="open")}
        ours.middle.deeds["query"] = {2: status("processing"), 3: status("submitted")}
        result = await ours.run(1)
        ours.paid_once(result, 1)
        queries = ours.middle.calls["query"]
        ours.middle.deeds["query"] = status("processing")
        ours.paid_once(await ours.run(1), 1)
        assert ours.middle.calls["query"] == queries, "a done task is not polled"


async def test_fv02_withdrawn_output_stays_paid(tmp_path):
    """A file that the user deleted is fetched again, but the provider does not have the task any more."""

    def back(body):
        row = {"progress_desc": "Fail", "output_url": [], "err_msg": "task expired"}
        return {**body, "data": {**body["data"], "list": [{**each, **row} for each in body["data"]["list"]]}}

    async with chain(tmp_path, "chanjing", cost=4.0) as ours:
        ours.paid_once(await ours.run(1), 1)
        ours.files[0].unlink()
        ours.middle.deeds["query"] = changed(back)
        result = await ours.run(1, retried=(State.DONE,))
        (task,) = result.tasks
        assert (result.exit, task["state"], task["reason"], task["spent"]) == (3, "stranded", "withdrawn", 4.0)
        assert "task expired" in task["message"]
        ours.middle.deeds.clear()
        ours.paid_once(await ours.run(1, retried=(State.STRANDED,)), 1)


async def test_fv02_late_success_of_failed_task_is_taken(tmp_path):
    """A failed task that succeeds after all is taken as a late result."""
    async with chain(tmp_path) as ours:
        ours.middle.deeds["query"] = status("failed", task_status_msg="node lost")
        assert (await ours.run(1)).states == ["failed"]
        ours.middle.deeds.clear()
        ours.paid_once(await ours.run(1), 1)


async def test_fv02_failed_task_is_polled_once_per_run(tmp_path):
    """A task that still counts as failed stays failed and is polled once in a run."""
    answers = [status("failed"), status("processing"), status("reviewing"), instead(answer("", 503), end="open")]
    async with chain(tmp_path) as ours:
        ours.middle.deeds["query"] = status("failed", task_status_msg="node lost")
        result = await ours.run(2)
        before = result.tasks
        for deed in answers:
            ours.middle.deeds["query"], queries = deed, ours.middle.calls["query"]
            result = await ours.run(2)
            assert (result.exit, result.tasks) == (3, before)
            assert 1 <= ours.middle.calls["query"] - queries <= 2
        assert ours.middle.calls["submit"] == 2


async def test_fv02_failed_tasks_are_polled_in_full_batches(tmp_path):
    """Chanjing does not bill failures, so the cost of late results is counted again."""

    def failed(body):
        for item in body["data"]["list"]:
            item.update(progress_desc="Error", output_url=[])
        return body

    async with chain(tmp_path, provider="chanjing", cost=4.0) as ours:
        ours.middle.deeds["query"] = changed(failed)
        result = await ours.run(15)
        assert result.states == ["failed"] * 15
        assert {task["spent"] for task in result.tasks} == {0.0}
        ours.middle.deeds.clear()
        queries = ours.middle.calls["query"]
        result = await ours.run(15)
        ours.paid_once(result, 15)
        assert {task["spent"] for task in result.tasks} == {4.0}
        assert ours.middle.calls["query"] == queries + 1
        assert len(result.outputs) == 15


@pytest.mark.slow
async def test_fv02_late_results_cost_twenty_calls_at_most(tmp_path):
    async with chain(tmp_path) as ours:
        ours.middle.deeds["query"] = status("failed")
        await ours.run(15)  # twenty in a row would stop submits
        assert (await ours.run(25)).states == ["failed"] * 25
        ours.middle.deeds.clear()
        queries = ours.middle.calls["query"]
        assert (await ours.run(25)).states == ["failed"] * 5 + ["done"] * 20, "the latest first"
        assert ours.middle.calls["query"] == queries + 20
        ours.paid_once(await ours.run(25), 25)


@pytest.mark.parametrize(
    "change",
    ["submitted_at = submitted_at - 4 * 86400", "reason = 'abandoned'", "remote_id = null"],
    ids=["four days old", "abandoned by the user", "never accepted"],
)
async def test_fv02_expired_failed_tasks_are_not_polled(tmp_path, change):
    async with chain(tmp_path) as ours:
        ours.middle.deeds["query"] = status("failed")
        await ours.run(1)
        with closing(sqlite3.connect(ours.directory / ".runner" / "state.db")) as connection, connection:
            connection.execute(f"update task set {change}")
        queries = ours.middle.calls["query"]
        assert (await ours.run(1)).states == ["failed"]
        assert ours.middle.calls["query"] == queries


@pytest.mark.slow
def test_fv02_next_run_fetches_late_results(rig):
    """Nothing else is left to do, and the summary shows the late results."""
    rig.write("job.yaml", manifest(2, provider="kling", model="image/kling-v2-1"))
    with sandbox("--seconds", "60,60") as box:
        process = rig.start("run", "job.yaml", "--json", env=box.env)
        reaches(process, lambda: sum(line["t"] == "id" for line in rig.journal) == 2)
        process.kill()
        process.communicate()
        with closing(sqlite3.connect(rig.state / "state.db")) as connection, connection:
            connection.execute("update task set state = 'failed', due_at = null, reason = 'provider'")
        assert rig.job(env={"KLING_BASE_URL": box.url})["counts"] == {"failed": 2}, (
            "without credentials there is no query, and nothing is lost"
        )
        box.change(seconds=[0, 0])
        summary = rig.finishes(box, 2)
        assert (summary["bonus"], summary["submitted"], summary["downloaded"]) == (2, 0, 2)
        rig.consistent()


WORDS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=12),
    st.lists(st.text(max_size=3), max_size=2),
    st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
    st.sampled_from(["SUCCEED", "Failed", "success ", "done", "审核中", "\ud800", "reviewing", "0", "4"]),
)
ENVELOPE = {
    "kling": lambda word: {"code": 0, "data": {"task_id": "x", "task_status": word}},
    "chanjing": lambda word: {"code": 0, "data": {"unique_id": "x", "progress_desc": word}},
    "kling-gateway": lambda word: {"code": 0, "data": {"task_id": "x", "task_status": word}},
}


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(word=WORDS)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_fv03_unknown_state_counts_as_running(provider, word):
    spec = load(provider)
    known = {name.lower() if spec.query.ignore_case else name for name in spec.query.map}
    event = read_query(spec, Reply(200, ENVELOPE[provider](word)))
    if isinstance(word, str) and (word.lower() if spec.query.ignore_case else word) in known:
        return
    assert isinstance(event, Pending | RetryableFailure), "no unknown state ends a task"
    assert not getattr(event, "settling", False)


@pytest.mark.slow
async def test_fv03_deadline_applies_to_unknown_state(tmp_path):
    words = ["reviewing", None, 7, ["x"]]

    async def odd(call):
        number = next((n for n, task in enumerate(ours.accepted) if task.id in call.path), None)
        await (call.pass_on() if number is None else status(words[number])(call))  # a page of the list is none of them

    async with chain(tmp_path, policy=SHORT) as ours:
        ours.middle.deeds["query"] = odd
        result = await ours.run(4)
        assert (result.exit, result.states) == (3, ["stranded"] * 4)
        assert len(ours.accepted) == 4
        ours.middle.deeds.clear()
        ours.paid_once(await ours.run(4, retried=(State.STRANDED,)), 4)


async def test_fv03_unknown_state_is_reported_once(tmp_path):
    async with chain(tmp_path) as ours:
        ours.middle.deeds["query"] = first(3, status("reviewing"))
        result = await ours.run(3)
        ours.paid_once(result, 3)
        assert sum("reviewing" in warning for warning in result.warnings) == 1


# FV4 to FV7: ids

GOOD_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
#: any other text is an id too, but these
NO_TEXT_ID = re.compile(r"\s*|(.*[/\\])?\.{1,2}([/\\].*)?|[^\0]*\0.*|.*[\ud800-\udfff].*", re.DOTALL)
TAKEN = {
    "kling": lambda value: {"code": 0, "data": {"task_id": value}},
    "chanjing": lambda value: {"code": 0, "data": value},
    "kling-gateway": lambda value: {"code": 0, "data": {"task_id": value}},
}


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(value=st.one_of(st.text(max_size=140), st.from_regex(GOOD_ID, fullmatch=True), st.integers(), st.booleans()))
@pytest.mark.parametrize("provider", PROVIDERS)
def test_fv04_invalid_id_is_in_doubt(provider, value):
    event = read_submit(load(provider), Reply(200, TAKEN[provider](value)))
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    valid = NO_TEXT_ID.fullmatch(text) is None and (provider != "chanjing" or isinstance(value, str))
    assert event == Accepted(text, "http 200") if valid else isinstance(event, Interrupted)


BAD_IDS = ["", " ", "x" * 10_240, "..", "a/../b", "a\0b", "\n", "纸" * 400, True, 1.5, ["x"], {"id": "x"}, None]


@pytest.mark.slow
async def test_fv04_invalid_id_is_never_bought_again(tmp_path):
    bad = dict(enumerate(BAD_IDS, start=1))

    def damaged(value):
        return changed(lambda body: {**body, "data": {**body["data"], "task_id": value}})

    async with chain(tmp_path, workers=1) as ours:
        ours.middle.deeds["submit"] = {number: damaged(value) for number, value in bad.items()}
        for _ in bad:  # three in a row stop each run
            result = await ours.run(len(bad))
        assert len(ours.accepted) == ours.middle.calls["submit"] == len(bad)
        assert Counter(result.states) == Counter(held=len(bad) - 1, done=1), (
            "null is no acceptance, so it is reconciled"
        )
        assert result.exit == 4


@pytest.mark.parametrize(
    ("provider", "code"),
    [("chanjing", 40001), ("chanjing", 40000), ("kling", 1302), ("kling", 1201), ("kling-gateway", 1101)],
)
async def test_fv04_refusal_that_names_a_task_is_in_doubt(tmp_path, provider, code):
    """The response holds an id and an error, so the task with this id may have been paid."""
    async with chain(tmp_path, provider) as ours:
        both = changed(lambda body: {**body, "code": code, "msg": "no", "message": "no"})
        ours.middle.deeds["submit"] = {1: both}
        result = await ours.run(1)
        (doubt,) = result.events_of(Interrupted)
        assert ours.accepted[0].id in doubt.reason
        if provider == "kling-gateway":
            assert (result.states, result.exit, len(ours.accepted)) == (["held"], 4, 1)
        else:
            ours.paid_once(await ours.run(1), 1)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_fv05_same_id_for_two_submits_belongs_to_one(tmp_path, provider):
    def again(body):
        first_id = ours.accepted[0].id
        return {**body, "data": first_id if provider == "chanjing" else {**body["data"], "task_id": first_id}}

    async with chain(tmp_path, provider) as ours:
        ours.middle.deeds["submit"] = {2: changed(again)}
        result = await ours.run(3)
        (doubt,) = result.events_of(Interrupted)
        assert "another task" in doubt.reason
        assert ours.middle.calls["submit"] == 3
        if provider == "kling-gateway":
            assert result.states == ["done", "held", "done"]
            assert result.tasks[1]["remote_id"] is None
        else:
            ours.paid_once(result, 3)
            assert result.tasks[1]["remote_id"] == ours.accepted[1].id


async def test_fv06_batch_is_read_by_id_only(tmp_path):
    """A batch that omits and adds ids is read by id alone."""
    strange = {"unique_id": "unrelated", "progress_desc": "Fail", "output_url": [], "type": 3}
    answers = []

    def muddled(body):
        answers.append(body)
        rows = body["data"]["list"][::-1][len(answers) == 1 :]  # the first answer leaves one out
        return {**body, "data": {**body["data"], "list": [strange, *rows, {"progress_desc": "Fail"}, None, strange]}}

    async with chain(tmp_path, "chanjing") as ours:
        ours.middle.deeds["query"] = changed(muddled)
        result = await ours.run(6)
        ours.paid_once(result, 6)
        for task, output in zip(result.tasks, result.outputs, strict=True):
            assert task["remote_id"] in output["url"]


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["kling", "kling-gateway"])
async def test_fv06_response_about_other_task_is_ignored(tmp_path, provider):
    """A cache or a proxy confuses two responses: the second task is shown as the first, with its outputs."""

    async def mixed_up(call):
        call.path = call.path.replace(ours.accepted[1].id, ours.accepted[0].id)
        await call.pass_on()

    async with chain(tmp_path, provider) as ours:
        ours.middle.deeds["query"] = first(6, mixed_up)
        ours.policy = RetryPolicy(quiet_time=0.3, first_poll=0.2, paid_timeout=20.0)
        result = await ours.run(2)
        ours.paid_once(result, 2)
        for task, output in zip(result.tasks, result.outputs, strict=True):
            assert task["remote_id"] in output["url"]


UNKNOWN = {
    "kling": [
        answer({"code": 1203, "message": "The requested resource does not exist"}, 404),
        answer({"code": 1201, "message": "task does not exist"}, 404),
        answer("404 page not found", 404),
        answer({"code": 0, "message": "SUCCEED", "data": None}),
    ],
    "chanjing": [answer({"code": 0, "msg": "success", "data": {"list": [], "total": 0}})],
    "kling-gateway": [answer({"code": "task_not_exist", "message": "task_not_exist", "data": None}, 400)],
}


@pytest.mark.slow
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_fv07_unknown_task_is_polled_again_and_not_bought(tmp_path, provider):
    """A task that the provider does not know is polled again and never bought again."""
    replies = UNKNOWN[provider]

    async def unknown(call):
        number = next((n for n, task in enumerate(ours.accepted) if task.id in call.path), 0)
        await call.say(replies[number])

    async with chain(tmp_path, provider, policy=SHORT) as ours:
        ours.middle.deeds["query"] = unknown
        result = await ours.run(len(replies))
        assert (result.exit, result.states) == (3, ["stranded"] * len(replies)), result.reasons
        assert (await ours.run(len(replies))).states == result.states
        ours.middle.deeds.clear()
        ours.paid_once(await ours.run(len(replies), retried=(State.STRANDED,)), len(replies))
        assert ours.middle.calls["submit"] == len(replies)


@pytest.mark.parametrize("provider", ["chanjing", "kling-gateway"])
async def test_fv07_404_page_is_wrong_url_and_loses_nothing(tmp_path, provider):
    """An HTML page with 404 means a wrong URL and loses nothing."""
    async with chain(tmp_path, provider) as ours:
        ours.middle.deeds["query"] = instead(answer("404 page not found", 404), end="open")
        result = await ours.run(1)
        # a list is asked before anything is bought
        state = "running" if provider == "kling-gateway" else "queued"
        assert (result.exit, result.states) == (7, [state])
        ours.middle.deeds.clear()
        ours.paid_once(await ours.run(1), 1)


# FV8 to FV12: results

EMPTY = {
    "kling": shown(lambda task: task.update({"task_status": "succeed", "task_result": {"images": []}})),
    "chanjing": changed(
        lambda body: {
            **body,
            "data": {**body["data"], "list": [{**row, "output_url": []} for row in body["data"]["list"]]},
        }
    ),
    "kling-gateway": shown(lambda task: task.update({"task_status": "succeed", "task_result": {}})),
}


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_fv08_success_without_outputs_ends_stranded(tmp_path, provider):
    """A success without outputs is polled again, then stranded and never bought again."""
    async with chain(tmp_path, provider, policy=LATER) as ours:
        ours.middle.deeds["query"] = EMPTY[provider]
        result = await ours.run(1)
        assert (result.exit, result.states) == (3, ["stranded"])
        assert result.tasks[0]["reason"] == "no_output"
        assert ours.files == []
        ours.middle.deeds.clear()
        ours.paid_once(await ours.run(1, retried=(State.STRANDED,)), 1)


async def test_fv08_success_with_late_outputs_is_a_success(tmp_path):
    async with chain(tmp_path, faults=Faults({"success_empty": "@1,2"})) as ours:
        ours.paid_once(await ours.run(2), 2)


@pytest.mark.parametrize(("provider", "field"), [("kling", "request_id"), ("chanjing", "trace_id")])
async def test_fv08_success_without_outputs_keeps_trace_id(tmp_path, provider, field):
    ids = []

    async def noted(call):
        _, body = await call.forward()
        ids.append(json.loads(body)[field])
        call.forward = lambda: asyncio.sleep(0, (b"", body))
        await EMPTY[provider](call)

    async with chain(tmp_path, provider, policy=LATER) as ours:
        ours.middle.deeds["query"] = noted
        result = await ours.run(1)
        assert result.states == ["stranded"]
        assert any(each in str(result.tasks[0]) for each in ids)


def images(urls):
    return shown(lambda task: task["task_result"].update({"images": [{"url": url} for url in urls(task)]}))


def links(task):
    return [image["url"] for image in task["task_result"]["images"]]


async def test_fv09_missing_outputs_are_reported_and_not_bought(tmp_path):
    """Fewer outputs than ordered are all fetched and reported. The rest is not bought."""
    async with chain(tmp_path) as ours:
        ours.middle.deeds["query"] = images(lambda task: links(task)[:2])
        result = await ours.run(1, images=3)
        assert (result.exit, result.states, len(ours.files)) == (3, ["done"], 2)
        assert (result.tasks[0]["reason"], result.tasks[0]["message"]) == ("partial", "2 of 3 outputs")
        ours.middle.deeds.clear()
        assert (await ours.run(1, images=3)).exit == 3
        assert ours.middle.calls["submit"] == 1


async def test_fv09_extra_outputs_are_all_saved(tmp_path):
    async with chain(tmp_path) as ours:
        await ours.elsewhere({"prompt": "others", "n": 3})
        spare = [f"{ours.middle.url}/files/{ours.accepted[0].id}/{n}.png" for n in range(3)]
        ours.middle.deeds["query"] = images(lambda task: [*links(task), *spare])
        result = await ours.run(1)
        assert (result.exit, result.states, len(ours.files)) == (0, ["done"], 4)


async def test_fv10_repeated_link_is_one_output(tmp_path):
    async with chain(tmp_path) as ours:
        ours.middle.deeds["query"] = images(lambda task: [*links(task), *links(task)])
        result = await ours.run(1, images=2)
        assert (result.states, len(ours.files), len(result.outputs)) == (["done"], 2, 2)
        assert len({output["sha256"] for output in result.outputs}) == 2


async def test_fv10_reordered_links_lose_no_output(tmp_path):
    """The first file is downloaded and the second link is expired. The fresh links come in the other order."""
    seen = []

    def turned(task):
        seen.append(task)
        return links(task) if len(seen) == 1 else links(task)[::-1]

    async with chain(tmp_path) as ours:
        ours.middle.deeds["query"] = images(turned)
        ours.middle.deeds["file"] = {2: instead(answer("expired", 403), end="open")}
        result = await ours.run(1, images=2)
        assert (result.states, len(seen)) == (["done"], 2)
        assert len({path.read_bytes() for path in ours.files}) == 2, "one image twice, the other never"


async def test_fv11_refused_content_is_final_and_others_continue(tmp_path):
    later = status("failed", task_status_msg="risk control policy")
    async with chain(tmp_path) as ours:
        wanted = [request("kling", number) for number in range(1, 5)]
        wanted[1]["prompt"] = "违规"

        async def query(call):
            """Refuse the task that was accepted first, whenever it is asked about; lists and look-ups pass."""
            is_first = call.path.endswith(f"/{ours.accepted[0].id}")
            await (later(call) if is_first else call.pass_on())

        ours.middle.deeds["query"] = query
        result = await ours.run(requests=wanted)
        assert result.exit == 3
        assert Counter(result.states) == Counter(done=2, failed=2)
        assert {task["reason"] for task in result.tasks if task["state"] == "failed"} == {"moderation"}
        again = await ours.run(requests=wanted)
        assert again.states == result.states
        assert ours.middle.calls["submit"] == 4


async def test_fv11_twenty_refusals_in_a_row_stop_submits(tmp_path):
    async with chain(tmp_path, workers=1) as ours:
        result = await ours.run(requests=[{"prompt": f"违规 {number}"} for number in range(30)])
        assert ours.middle.calls["submit"] <= 20
        assert "queued" in result.states


async def test_fv12_failed_task_is_bought_again_only_on_request(tmp_path):
    """A failed task is bought again only on a user's request, and counts as a new purchase."""
    async with chain(tmp_path) as ours:
        wanted = [{"prompt": "FAIL-TEST"}, {"prompt": "fine"}]
        assert (await ours.run(requests=wanted)).states == ["failed", "done"]
        assert (await ours.run(requests=wanted, retried=(State.STRANDED,))).states == ["failed", "done"]
        assert len(ours.accepted) == 2
        await ours.run(requests=wanted, retried=(State.FAILED,))
        references = [task.external_id for task in ours.accepted if "FAIL" in task.prompt]
        assert [reference[-3:] for reference in references] == ["-g1", "-g2"]
        assert len(ours.accepted) == 3


# FV13: fields come and go

REPLIES = Path(__file__).parents[1] / "replies"
VALUES = (None, True, 0, -1, 1.5, "", "x y", "0", "success", [], ["x"], {}, "\ud800")


def recorded():
    """Return every recorded response: provider, kind, status, headers, body."""
    for provider in PROVIDERS:
        text = yaml.safe_load((REPLIES / f"{provider}.yaml").read_text(encoding="utf-8"))
        for kind in ("submit", "query", "page", "reference"):
            for case in text.get(kind, ()):
                reply = case["reply"]
                yield provider, kind, reply["status"], reply.get("headers", {}), reply["body"]


def places(value, path=()):
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        yield from places(each, (*path, name))


def mutants(body):
    """Yield the body with each key deleted, replaced, and duplicated under another name."""
    for path in places(body):
        for change in ("delete", "double", *VALUES):
            made = copy.deepcopy(body)
            holder = made
            for name in path[:-1]:
                holder = holder[name]
            if isinstance(change, str) and change == "delete":
                del holder[path[-1]]
            elif isinstance(change, str) and change == "double":
                if isinstance(holder, dict):
                    holder[f"{path[-1]}_new"] = holder[path[-1]]
                else:
                    holder.append(holder[path[-1]])
            else:
                holder[path[-1]] = change
            yield path, change, made


def good_id(value):
    """Return the text of a valid id, or None, by a second implementation."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value) if NO_TEXT_ID.fullmatch(str(value)) is None and len(str(value).encode()) <= 1024 else None


def promised(provider, status, body):
    """Return the id that a response to a submit clearly gives, or None, by a second implementation."""
    if not 200 <= status < 300 or not isinstance(body, dict):
        return None
    code, data = body.get("code"), body.get("data")
    zero = code == 0 and not isinstance(code, bool)
    inner = data.get("task_id") if isinstance(data, dict) else None
    match provider:
        case "chanjing":
            return good_id(data) if zero and isinstance(data, str) else None
        case "kling":
            return good_id(inner) if zero else None
        case _:
            if not (zero or code is None or code == "success"):
                return None
            # JMESPath's "or": the first that is neither null nor empty
            places_ = (inner, body.get("task_id"), body.get("id"))
            return good_id(next((each for each in places_ if each or (each == 0 and each is not False)), None))


class Asked:
    """The part of a task that a query by reference needs."""

    ref, remote_id, id = "r0-1-g1", "u-1", 1


@pytest.mark.slow
@pytest.mark.parametrize("provider", PROVIDERS)
def test_fv13_missing_or_changed_keys_never_raise(provider):
    """A missing or changed key makes no id, loses none and raises nothing."""
    spec, tried = load(provider), 0
    for _, kind, status_, headers, body in (case for case in recorded() if case[0] == provider):
        for path, change, made in itertools.chain([((), "as it is", body)], mutants(body)):
            reply = Reply(status_, made, headers)
            submit = read_submit(spec, reply)
            result = (kind, path, change, made, submit)
            wanted = promised(provider, status_, made)
            assert (submit == Accepted(wanted, f"http {status_}")) if wanted else not isinstance(submit, Accepted), (
                result
            )
            assert isinstance(
                read_query(spec, reply), Pending | Finished | Rejected | RetryableFailure | AccountBlocked
            ), result
            found = read_reference(spec, Asked, reply)
            assert found is None or isinstance(found, RetryableFailure | AccountBlocked) or good_id(found.remote_id), (
                result
            )
            read_page(spec, reply)
            tried += 1
    assert tried > 500


async def test_fv13_extra_and_missing_fields_stop_nothing(tmp_path):
    def grown(body):
        body.pop("request_id", None)
        body.pop("message", None)
        return {"version": 2, "extra": {"code": 1, "data": None}, **body}

    async with chain(tmp_path) as ours:
        ours.middle.deeds |= {"submit": changed(grown), "query": changed(grown)}
        ours.paid_once(await ours.run(3), 3)


# FV14 to FV16: lists


def listed(change):
    """Return a deed that changes Chanjing's list without ids by `change(rows, page)`. Polls pass unchanged."""

    async def deed(call):
        query = json.loads(call.body)
        if query.get("unique_ids"):
            await call.pass_on()
            return
        call.body = json.dumps({**query, "page": 1}).encode()
        call.headers["content-length"] = str(len(call.body))
        _, body = await call.forward()
        reply = json.loads(body)
        reply["data"]["list"] = change(reply["data"]["list"], query["page"])
        reply["data"]["total"] = 0
        await call.say(answer(reply))

    return deed


async def test_fv14_unordered_list_finds_lost_task(tmp_path):
    """An unordered list with odd page sizes and a wrong total finds what was lost."""
    order = random.Random(4)

    def two_a_page(rows, page):
        rows = sorted(rows, key=lambda row: row["unique_id"][::-1])[2 * (page - 1) : 2 * page]
        order.shuffle(rows)
        return rows

    async with chain(tmp_path, "chanjing") as ours:
        ours.middle.deeds["submit"] = {2: instead(b"", after=True), 6: instead(b"", after=True)}
        ours.middle.deeds["query"] = listed(two_a_page)
        result = await ours.run(7)
        ours.paid_once(result, 7)
        assert len(result.events_of(Found)) == 2


async def test_fv14_list_with_shifting_rows_proves_no_absence(tmp_path):
    """Every second reading omits the task, so no two readings in a row agree that it is absent."""
    readings = []

    def shifting(rows, page):
        if page > 1 or len(ours.accepted) < 2:
            return rows
        readings.append(page)
        lost = ours.accepted[1].id
        odd = {**rows[0], "unique_id": f"noise-{len(readings)}", "photo_info": {"ref_prompt": "noise"}}
        return [odd, *(row for row in rows if row["unique_id"] != lost or len(readings) > 5)]

    async with chain(tmp_path, "chanjing") as ours:
        ours.middle.deeds["submit"] = {2: instead(b"", after=True)}
        ours.middle.deeds["query"] = listed(shifting)
        result = await ours.run(3)
        assert len(ours.accepted) == 3
        assert result.events_of(Missing) == [], "a reading that differs from the one before is no clean one"
        ours.paid_once(result, 3)


@pytest.mark.slow
async def test_fv14_endless_list_is_abandoned_without_purchase(tmp_path):
    """A list without an end is abandoned, and nothing is bought again."""

    def endless(rows, page):
        fresh = {**rows[0], "create_time": 0, "photo_info": {"ref_prompt": "noise"}}
        return [{**fresh, "unique_id": f"noise-{page}"}]

    async with chain(tmp_path, "chanjing", query_rate=2000.0) as ours:
        ours.policy = replace(LATER, max_unclean=1)
        ours.middle.deeds["submit"] = {2: instead(b"", after=True)}
        ours.middle.deeds["query"] = listed(endless)
        result = await ours.run(2)
        assert (result.exit, result.states) == (5, ["done", "in_doubt"])
        assert ours.middle.calls["query"] <= 200 + 10
        assert len(ours.accepted) == 2
        ours.middle.deeds.clear()
        ours.paid_once(await ours.run(2), 2)


@pytest.mark.parametrize("taken", [True, False], ids=["accepted", "not accepted"])
async def test_fv15_unrelated_tasks_are_neither_adopted_nor_fetched(tmp_path, taken):
    """The account has unrelated tasks: other requests of today, and equal requests of an hour ago."""
    async with chain(tmp_path, "chanjing") as ours:
        other = [{**request("chanjing", number), "ref_prompt": f"theirs {number}"} for number in range(4)]
        unrelated = await ours.elsewhere(*other, request("chanjing", 2), request("chanjing", 3))

        def old(rows, page):
            rows = rows if page == 1 else []
            return [{**row, "create_time": row["create_time"] - 3600 * (row["unique_id"] in unrelated)} for row in rows]

        ours.middle.deeds["submit"] = {2: instead(b"", after=taken)}
        ours.middle.deeds["query"] = listed(old)
        result = await ours.run(3)
        assert result.states == ["done"] * 3
        assert {task["remote_id"] for task in result.tasks}.isdisjoint(unrelated)
        assert len(ours.accepted) == len(unrelated) + 3
        fetched = " ".join(call.path for call in ours.middle.seen["file"])
        assert not any(task_id in fetched for task_id in unrelated)


async def test_fv16_task_cancelled_in_console_is_not_bought_again(tmp_path):
    """A task that was cancelled in the console has failed and is not bought again."""

    def cancelled(body):
        rows = [{**row, "progress_desc": "Cancelled", "output_url": []} for row in body["data"]["list"]]
        return {**body, "data": {**body["data"], "list": rows}}

    async with chain(tmp_path, "chanjing") as ours:
        ours.middle.deeds["query"] = changed(cancelled)
        result = await ours.run(2)
        assert (result.exit, result.states) == (3, ["failed"] * 2)
        assert (await ours.run(2)).states == ["failed"] * 2
        assert ours.middle.calls["submit"] == 2


async def test_fv16_audit_shows_duplicate_made_by_provider(tmp_path):
    """A duplicate that the provider made is shown by an audit."""
    async with chain(tmp_path, external_id_unique=False) as ours:
        ours.middle.deeds["submit"] = {1: _twice}
        result = await ours.run(2, audited=True)
        assert result.states == ["done"] * 2
        (finding,) = result.audit.findings
        assert (finding.kind, finding.key) == ("duplicate", result.tasks[0]["key"])
        assert finding.remote_id in {task.id for task in ours.accepted} - {task["remote_id"] for task in result.tasks}


async def _twice(call):
    await call.pass_on()
    await call.forward()
