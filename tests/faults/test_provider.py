"""Section 6, provider semantics: whatever a provider says of a task, it is paid once and nothing of it is lost."""

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

from runner.lifecycle.events import Accepted, Blocked, Finished, Found, Interrupted, Missing, Pending, Refused, Setback
from runner.lifecycle.patience import Patience
from runner.lifecycle.task import State
from runner.providers.exchange import Reply
from runner.providers.reading import read_page, read_query, read_reference, read_submit
from runner.providers.spec import load
from runner.sandbox.faults import Faults
from tests.faults.conftest import images as manifest
from tests.faults.conftest import reaches, sandbox

from .chain import chain, request
from .server import answer, changed, first, instead

PROVIDERS = ("kling", "chanjing", "kling-gateway")
SHORT = Patience(doubt=0.3, first_look=0.05, paid=0.6)
LATER = Patience(doubt=0.3, first_look=0.05, paid=20.0, settlings=2, refreshes=3)


def shown(change):
    """Kling's answer about one task, with its object as `change(object)` leaves it."""

    def deed(body):
        if isinstance(body.get("data"), dict):
            change(body["data"])
        return body

    return changed(deed)


def status(word, **more):
    return shown(lambda task: task.update({"task_status": word, "task_result": {}, **more}))


# FV1 to FV3: states


async def test_fv01_a_task_that_is_stuck_is_stranded_polled_seldom_and_never_bought_again(tmp_path):
    async with chain(tmp_path, seconds=(60.0, 60.0), patience=SHORT) as ours:
        told = await ours.run(3)
        assert (told.exit, told.states) == (3, ["stranded"] * 3)
        assert {task["reason"] for task in told.tasks} == {"stuck"}
        asked = ours.middle.calls["query"]
        assert asked <= 3 * 0.8 / 0.05, "twenty times a second at the most, here"
        assert (await ours.run(3)).states == ["stranded"] * 3
        assert ours.middle.calls["query"] == asked + 3, "what is stranded is asked about once in a run"
        assert ours.middle.calls["submit"] == 3
        ours.sandbox.change(seconds=[0, 0])  # it is finished after all, and a person asks
        ours.paid_once(await ours.run(3, retried=(State.STRANDED,)), 3)


async def test_fv02_a_state_that_goes_backwards_undoes_nothing(tmp_path):
    async with chain(tmp_path) as ours:
        ours.middle.deeds["file"] = {1: instead(answer("gone", 410), end="open")}
        ours.middle.deeds["query"] = {2: status("processing"), 3: status("submitted")}
        told = await ours.run(1)
        ours.paid_once(told, 1)
        asked = ours.middle.calls["query"]
        ours.middle.deeds["query"] = status("processing")
        ours.paid_once(await ours.run(1), 1)
        assert ours.middle.calls["query"] == asked, "what is done is not asked about"


async def test_fv02_what_was_paid_and_fetched_once_is_not_called_unpaid_when_the_provider_takes_it_back(tmp_path):
    """A file that a person deleted is asked for again, and the provider has forgotten that it ever made it."""

    def back(body):
        row = {"progress_desc": "Fail", "output_url": [], "err_msg": "task expired"}
        return {**body, "data": {**body["data"], "list": [{**each, **row} for each in body["data"]["list"]]}}

    async with chain(tmp_path, "chanjing", cost=4.0) as ours:
        ours.paid_once(await ours.run(1), 1)
        ours.files[0].unlink()
        ours.middle.deeds["query"] = changed(back)
        told = await ours.run(1, retried=(State.DONE,))
        (task,) = told.tasks
        assert (told.exit, task["state"], task["reason"], task["spent"]) == (3, "stranded", "withdrawn", 4.0)
        assert "task expired" in task["message"]
        ours.middle.deeds.clear()
        ours.paid_once(await ours.run(1, retried=(State.STRANDED,)), 1)


async def test_fv02_a_failed_task_that_succeeds_after_all_is_taken_as_a_bonus(tmp_path):
    async with chain(tmp_path) as ours:
        ours.middle.deeds["query"] = status("failed", task_status_msg="node lost")
        assert (await ours.run(1)).states == ["failed"]
        ours.middle.deeds.clear()
        ours.paid_once(await ours.run(1), 1)


async def test_fv02_what_still_counts_as_failed_stays_so_and_is_asked_about_once_in_a_run(tmp_path):
    answers = [status("failed"), status("processing"), status("reviewing"), instead(answer("", 503), end="open")]
    async with chain(tmp_path) as ours:
        ours.middle.deeds["query"] = status("failed", task_status_msg="node lost")
        told = await ours.run(2)
        before = told.tasks
        for deed in answers:
            ours.middle.deeds["query"], asked = deed, ours.middle.calls["query"]
            told = await ours.run(2)
            assert (told.exit, told.tasks) == (3, before)
            assert 1 <= ours.middle.calls["query"] - asked <= 2
        assert ours.middle.calls["submit"] == 2


async def test_fv02_many_are_asked_about_in_full_calls_and_what_they_cost_counts_again(tmp_path):
    """Chanjing does not bill failures, so what comes after all is counted as spent after all."""

    def failed(body):
        for item in body["data"]["list"]:
            item.update(progress_desc="Error", output_url=[])
        return body

    async with chain(tmp_path, provider="chanjing", cost=4.0) as ours:
        ours.middle.deeds["query"] = changed(failed)
        told = await ours.run(15)
        assert told.states == ["failed"] * 15
        assert {task["spent"] for task in told.tasks} == {0.0}
        ours.middle.deeds.clear()
        asked = ours.middle.calls["query"]
        told = await ours.run(15)
        ours.paid_once(told, 15)
        assert {task["spent"] for task in told.tasks} == {4.0}
        assert ours.middle.calls["query"] == asked + 1
        assert len(told.outputs) == 15


async def test_fv02_no_more_than_twenty_calls_are_spent_on_it(tmp_path):
    async with chain(tmp_path) as ours:
        ours.middle.deeds["query"] = status("failed")
        await ours.run(15)  # twenty in a row would stop submits
        assert (await ours.run(25)).states == ["failed"] * 25
        ours.middle.deeds.clear()
        asked = ours.middle.calls["query"]
        assert (await ours.run(25)).states == ["failed"] * 5 + ["done"] * 20, "the latest first"
        assert ours.middle.calls["query"] == asked + 20
        ours.paid_once(await ours.run(25), 25)


@pytest.mark.parametrize(
    "change",
    ["submitted_at = submitted_at - 4 * 86400", "reason = 'abandoned'", "remote_id = null"],
    ids=["four days old", "given up by a person", "never accepted"],
)
async def test_fv02_nobody_asks_about_what_cannot_come_any_more(tmp_path, change):
    async with chain(tmp_path) as ours:
        ours.middle.deeds["query"] = status("failed")
        await ours.run(1)
        with closing(sqlite3.connect(ours.directory / ".runner" / "state.db")) as connection, connection:
            connection.execute(f"update task set {change}")
        asked = ours.middle.calls["query"]
        assert (await ours.run(1)).states == ["failed"]
        assert ours.middle.calls["query"] == asked


def test_fv02_the_next_run_of_the_command_brings_what_was_made_after_all(rig):
    """Nothing else is left to do, and the summary says what came."""
    rig.write("job.yaml", manifest(2, provider="kling", model="image/kling-v2-1"))
    with sandbox("--seconds", "60,60") as box:
        process = rig.start("run", "job.yaml", "--json", env=box.env)
        reaches(process, lambda: sum(line["t"] == "id" for line in rig.journal) == 2)
        process.kill()
        process.communicate()
        with closing(sqlite3.connect(rig.state / "state.db")) as connection, connection:
            connection.execute("update task set state = 'failed', due_at = null, reason = 'provider'")
        assert rig.job(env={"KLING_BASE_URL": box.url})["counts"] == {"failed": 2}, (
            "without credentials nobody can ask, and nothing is lost"
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


@settings(max_examples=150, deadline=None)
@given(word=WORDS)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_fv03_an_unknown_null_or_numeric_state_is_a_running_task(provider, word):
    spec = load(provider)
    known = {name.lower() if spec.query.ignore_case else name for name in spec.query.map}
    event = read_query(spec, Reply(200, ENVELOPE[provider](word)))
    if isinstance(word, str) and (word.lower() if spec.query.ignore_case else word) in known:
        return
    assert isinstance(event, Pending | Setback), "no word that nobody knows ends a task"
    assert not getattr(event, "settling", False)


async def test_fv03_the_deadline_applies_to_a_state_that_nobody_knows(tmp_path):
    words = ["reviewing", None, 7, ["x"]]

    async def odd(call):
        number = next(n for n, task in enumerate(ours.accepted) if task.id in call.path)
        await status(words[number])(call)

    async with chain(tmp_path, patience=SHORT) as ours:
        ours.middle.deeds["query"] = odd
        told = await ours.run(4)
        assert (told.exit, told.states) == (3, ["stranded"] * 4)
        assert len(ours.accepted) == 4
        ours.middle.deeds.clear()
        ours.paid_once(await ours.run(4, retried=(State.STRANDED,)), 4)


async def test_fv03_of_a_word_that_nobody_knows_a_person_is_told_once(tmp_path):
    async with chain(tmp_path) as ours:
        ours.middle.deeds["query"] = first(3, status("reviewing"))
        told = await ours.run(3)
        ours.paid_once(told, 3)
        assert sum("reviewing" in notice for notice in told.notices) == 1


# FV4 to FV7: ids

GOOD_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
TAKEN = {
    "kling": lambda value: {"code": 0, "data": {"task_id": value}},
    "chanjing": lambda value: {"code": 0, "data": value},
    "kling-gateway": lambda value: {"code": 0, "data": {"task_id": value}},
}


@settings(max_examples=200, deadline=None)
@given(value=st.one_of(st.text(max_size=140), st.from_regex(GOOD_ID, fullmatch=True), st.integers(), st.booleans()))
@pytest.mark.parametrize("provider", PROVIDERS)
def test_fv04_an_id_is_taken_if_it_is_one_and_is_a_doubt_if_not(provider, value):
    event = read_submit(load(provider), Reply(200, TAKEN[provider](value)))
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    valid = (
        GOOD_ID.fullmatch(text) is not None
        and text.strip(".") != ""
        and (provider != "chanjing" or isinstance(value, str))
    )
    assert event == Accepted(text, "http 200") if valid else isinstance(event, Interrupted)


BAD_IDS = ["", " ", "x" * 10_240, "a/../b", "a?b=c", "a#b", "a\n", "纸船", True, 1.5, ["x"], {"id": "x"}, None]


async def test_fv04_an_id_that_is_none_is_never_bought_again(tmp_path):
    bad = dict(enumerate(BAD_IDS, start=1))

    def damaged(value):
        return changed(lambda body: {**body, "data": {**body["data"], "task_id": value}})

    async with chain(tmp_path, submits=1) as ours:
        ours.middle.deeds["submit"] = {number: damaged(value) for number, value in bad.items()}
        for _ in bad:  # three in a row stop each run
            told = await ours.run(len(bad))
        assert len(ours.accepted) == ours.middle.calls["submit"] == len(bad)
        assert Counter(told.states) == Counter(held=len(bad) - 1, done=1), "null is no acceptance, so it is looked up"
        assert told.exit == 4


@pytest.mark.parametrize(
    ("provider", "code"),
    [("chanjing", 40001), ("chanjing", 40000), ("kling", 1302), ("kling", 1201), ("kling-gateway", 1101)],
)
async def test_fv04_a_refusal_that_names_a_task_is_a_doubt(tmp_path, provider, code):
    """An id and an error in one answer: what the id stands for may be paid for."""
    async with chain(tmp_path, provider) as ours:
        both = changed(lambda body: {**body, "code": code, "msg": "no", "message": "no"})
        ours.middle.deeds["submit"] = {1: both}
        told = await ours.run(1)
        (doubt,) = told.heard(Interrupted)
        assert ours.accepted[0].id in doubt.evidence
        if provider == "kling-gateway":
            assert (told.states, told.exit, len(ours.accepted)) == (["held"], 4, 1)
        else:
            ours.paid_once(await ours.run(1), 1)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_fv05_the_same_id_for_two_submits_never_belongs_to_both(tmp_path, provider):
    def again(body):
        first_id = ours.accepted[0].id
        return {**body, "data": first_id if provider == "chanjing" else {**body["data"], "task_id": first_id}}

    async with chain(tmp_path, provider) as ours:
        ours.middle.deeds["submit"] = {2: changed(again)}
        told = await ours.run(3)
        (doubt,) = told.heard(Interrupted)
        assert "another task" in doubt.evidence
        assert ours.middle.calls["submit"] == 3
        if provider == "kling-gateway":
            assert told.states == ["done", "held", "done"]
            assert told.tasks[1]["remote_id"] is None
        else:
            ours.paid_once(told, 3)
            assert told.tasks[1]["remote_id"] == ours.accepted[1].id


async def test_fv06_a_batch_that_omits_and_adds_ids_is_read_by_id_alone(tmp_path):
    strange = {"unique_id": "stranger", "progress_desc": "Fail", "output_url": [], "type": 3}
    answers = []

    def muddled(body):
        answers.append(body)
        rows = body["data"]["list"][::-1][len(answers) == 1 :]  # the first answer leaves one out
        return {**body, "data": {**body["data"], "list": [strange, *rows, {"progress_desc": "Fail"}, None, strange]}}

    async with chain(tmp_path, "chanjing") as ours:
        ours.middle.deeds["query"] = changed(muddled)
        told = await ours.run(6)
        ours.paid_once(told, 6)
        for task, output in zip(told.tasks, told.outputs, strict=True):
            assert task["remote_id"] in output["url"]


@pytest.mark.parametrize("provider", ["kling", "kling-gateway"])
async def test_fv06_an_answer_about_another_task_is_none(tmp_path, provider):
    """A cache or a proxy mixes up two answers: the second task is shown as the first, with its outputs."""

    async def mixed_up(call):
        call.path = call.path.replace(ours.accepted[1].id, ours.accepted[0].id)
        await call.pass_on()

    async with chain(tmp_path, provider) as ours:
        ours.middle.deeds["query"] = first(6, mixed_up)
        ours.patience = Patience(doubt=0.3, first_look=0.2, paid=20.0)
        told = await ours.run(2)
        ours.paid_once(told, 2)
        for task, output in zip(told.tasks, told.outputs, strict=True):
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


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_fv07_a_task_that_the_provider_does_not_know_is_asked_about_again_never_bought_again(tmp_path, provider):
    said = UNKNOWN[provider]

    async def unknown(call):
        number = next((n for n, task in enumerate(ours.accepted) if task.id in call.path), 0)
        await call.say(said[number])

    async with chain(tmp_path, provider, patience=SHORT) as ours:
        ours.middle.deeds["query"] = unknown
        told = await ours.run(len(said))
        assert (told.exit, told.states) == (3, ["stranded"] * len(said)), told.reasons
        assert (await ours.run(len(said))).states == told.states
        ours.middle.deeds.clear()
        ours.paid_once(await ours.run(len(said), retried=(State.STRANDED,)), len(said))
        assert ours.middle.calls["submit"] == len(said)


@pytest.mark.parametrize("provider", ["chanjing", "kling-gateway"])
async def test_fv07_a_page_that_says_404_is_a_wrong_address_and_loses_nothing(tmp_path, provider):
    async with chain(tmp_path, provider) as ours:
        ours.middle.deeds["query"] = instead(answer("404 page not found", 404), end="open")
        told = await ours.run(1)
        assert (told.exit, told.states) == (7, ["running"])
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
async def test_fv08_success_without_outputs_is_asked_about_again_then_stranded_and_never_bought_again(
    tmp_path, provider
):
    async with chain(tmp_path, provider, patience=LATER) as ours:
        ours.middle.deeds["query"] = EMPTY[provider]
        told = await ours.run(1)
        assert (told.exit, told.states) == (3, ["stranded"])
        assert told.tasks[0]["reason"] == "no_output"
        assert ours.files == []
        ours.middle.deeds.clear()
        ours.paid_once(await ours.run(1, retried=(State.STRANDED,)), 1)


async def test_fv08_success_that_shows_its_outputs_later_is_a_success(tmp_path):
    async with chain(tmp_path, faults=Faults({"success_empty": "@1,2"})) as ours:
        ours.paid_once(await ours.run(2), 2)


@pytest.mark.parametrize(("provider", "field"), [("kling", "request_id"), ("chanjing", "trace_id")])
async def test_fv08_of_a_success_without_outputs_the_trace_id_is_kept(tmp_path, provider, field):
    ids = []

    async def noted(call):
        _, body = await call.forward()
        ids.append(json.loads(body)[field])
        call.forward = lambda: asyncio.sleep(0, (b"", body))
        await EMPTY[provider](call)

    async with chain(tmp_path, provider, patience=LATER) as ours:
        ours.middle.deeds["query"] = noted
        told = await ours.run(1)
        assert told.states == ["stranded"]
        assert any(each in str(told.tasks[0]) for each in ids)


def images(urls):
    return shown(lambda task: task["task_result"].update({"images": [{"url": url} for url in urls(task)]}))


def links(task):
    return [image["url"] for image in task["task_result"]["images"]]


async def test_fv09_fewer_outputs_than_ordered_are_all_fetched_and_reported_and_not_topped_up(tmp_path):
    async with chain(tmp_path) as ours:
        ours.middle.deeds["query"] = images(lambda task: links(task)[:2])
        told = await ours.run(1, images=3)
        assert (told.exit, told.states, len(ours.files)) == (3, ["done"], 2)
        assert (told.tasks[0]["reason"], told.tasks[0]["message"]) == ("partial", "2 of 3 outputs")
        ours.middle.deeds.clear()
        assert (await ours.run(1, images=3)).exit == 3
        assert ours.middle.calls["submit"] == 1


async def test_fv09_more_outputs_than_ordered_are_all_saved(tmp_path):
    async with chain(tmp_path) as ours:
        await ours.elsewhere({"prompt": "others", "n": 3})
        spare = [f"{ours.middle.url}/files/{ours.accepted[0].id}/{n}.png" for n in range(3)]
        ours.middle.deeds["query"] = images(lambda task: [*links(task), *spare])
        told = await ours.run(1)
        assert (told.exit, told.states, len(ours.files)) == (0, ["done"], 4)


async def test_fv10_a_link_that_is_shown_twice_is_one_output(tmp_path):
    async with chain(tmp_path) as ours:
        ours.middle.deeds["query"] = images(lambda task: [*links(task), *links(task)])
        told = await ours.run(1, images=2)
        assert (told.states, len(ours.files), len(told.outputs)) == (["done"], 2, 2)
        assert len({output["sha256"] for output in told.outputs}) == 2


async def test_fv10_another_order_in_a_later_answer_loses_no_output(tmp_path):
    """The first file is here, the second link is dead; the fresh links come the other way round."""
    seen = []

    def turned(task):
        seen.append(task)
        return links(task) if len(seen) == 1 else links(task)[::-1]

    async with chain(tmp_path) as ours:
        ours.middle.deeds["query"] = images(turned)
        ours.middle.deeds["file"] = {2: instead(answer("expired", 403), end="open")}
        told = await ours.run(1, images=2)
        assert (told.states, len(seen)) == (["done"], 2)
        assert len({path.read_bytes() for path in ours.files}) == 2, "one picture twice, the other never"


async def test_fv11_refused_content_is_final_and_the_rest_goes_on(tmp_path):
    later = status("failed", task_status_msg="risk control policy")
    async with chain(tmp_path) as ours:
        wanted = [request("kling", number) for number in range(1, 5)]
        wanted[1]["prompt"] = "违规"
        ours.middle.deeds["query"] = {1: later}
        told = await ours.run(requests=wanted)
        assert told.exit == 3
        assert Counter(told.states) == Counter(done=2, failed=2)
        assert {task["reason"] for task in told.tasks if task["state"] == "failed"} == {"moderation"}
        again = await ours.run(requests=wanted)
        assert again.states == told.states
        assert ours.middle.calls["submit"] == 4


async def test_fv11_twenty_refusals_in_a_row_stop_a_poisoned_manifest(tmp_path):
    async with chain(tmp_path, submits=1) as ours:
        told = await ours.run(requests=[{"prompt": f"违规 {number}"} for number in range(30)])
        assert ours.middle.calls["submit"] <= 20
        assert "queued" in told.states


async def test_fv12_a_failed_task_is_bought_anew_only_by_a_persons_word_as_a_new_generation(tmp_path):
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
    """Every recorded answer: provider, kind, status, headers, body."""
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
    """The body with each key deleted, replaced, and joined by its double under another name."""
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
    """By eyes of our own: the text of an id, or None."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value) if GOOD_ID.fullmatch(str(value)) else None


def promised(provider, status, body):
    """The id that an answer to a submit plainly gives, read by hand; None where it gives none."""
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
    """As much of a task as a look-up by reference needs."""

    ref, remote_id, id = "r0-1-g1", "u-1", 1


@pytest.mark.parametrize("provider", PROVIDERS)
def test_fv13_no_key_that_goes_or_changes_makes_an_id_loses_one_or_raises(provider):
    spec, tried = load(provider), 0
    for _, kind, status_, headers, body in (case for case in recorded() if case[0] == provider):
        for path, change, made in itertools.chain([((), "as it is", body)], mutants(body)):
            reply = Reply(status_, made, headers)
            submit = read_submit(spec, reply)
            told = (kind, path, change, made, submit)
            wanted = promised(provider, status_, made)
            assert (submit == Accepted(wanted, f"http {status_}")) if wanted else not isinstance(submit, Accepted), told
            assert isinstance(read_query(spec, reply), Pending | Finished | Refused | Setback | Blocked), told
            found = read_reference(spec, Asked, reply)
            assert found is None or isinstance(found, Setback | Blocked) or good_id(found.remote_id), told
            read_page(spec, reply)
            tried += 1
    assert tried > 500


async def test_fv13_a_field_more_or_less_in_every_answer_stops_nobody(tmp_path):
    def grown(body):
        body.pop("request_id", None)
        body.pop("message", None)
        return {"version": 2, "extra": {"code": 1, "data": None}, **body}

    async with chain(tmp_path) as ours:
        ours.middle.deeds |= {"submit": changed(grown), "query": changed(grown)}
        ours.paid_once(await ours.run(3), 3)


# FV14 to FV16: lists


def listed(change):
    """Chanjing's list, where no ids are asked for, as `change(rows, page)` leaves it; polls pass untouched."""

    async def deed(call):
        asked = json.loads(call.body)
        if asked.get("unique_ids"):
            await call.pass_on()
            return
        call.body = json.dumps({**asked, "page": 1}).encode()
        call.headers["content-length"] = str(len(call.body))
        _, body = await call.forward()
        told = json.loads(body)
        told["data"]["list"] = change(told["data"]["list"], asked["page"])
        told["data"]["total"] = 0
        await call.say(answer(told))

    return deed


async def test_fv14_an_unordered_list_with_pages_of_its_own_and_a_wrong_total_finds_what_was_lost(tmp_path):
    order = random.Random(4)

    def two_a_page(rows, page):
        rows = sorted(rows, key=lambda row: row["unique_id"][::-1])[2 * (page - 1) : 2 * page]
        order.shuffle(rows)
        return rows

    async with chain(tmp_path, "chanjing") as ours:
        ours.middle.deeds["submit"] = {2: instead(b"", after=True), 6: instead(b"", after=True)}
        ours.middle.deeds["query"] = listed(two_a_page)
        told = await ours.run(7)
        ours.paid_once(told, 7)
        assert len(told.heard(Found)) == 2


async def test_fv14_a_list_whose_rows_shift_between_readings_proves_no_absence(tmp_path):
    """One reading in two leaves our task out, so that no two readings in a row agree that it is not there."""
    readings = []

    def shifting(rows, page):
        if page > 1:
            return []
        readings.append(page)
        lost = ours.accepted[1].id
        odd = {**rows[0], "unique_id": f"noise-{len(readings)}", "photo_info": {"ref_prompt": "noise"}}
        return [odd, *(row for row in rows if row["unique_id"] != lost or len(readings) > 5)]

    async with chain(tmp_path, "chanjing") as ours:
        ours.middle.deeds["submit"] = {2: instead(b"", after=True)}
        ours.middle.deeds["query"] = listed(shifting)
        told = await ours.run(3)
        assert len(ours.accepted) == 3
        assert told.heard(Missing) == [], "a reading that differs from the one before is no clean one"
        ours.paid_once(told, 3)


async def test_fv14_a_list_without_an_end_is_given_up_and_nothing_is_bought_again(tmp_path):
    def endless(rows, page):
        fresh = {**rows[0], "create_time": 0, "photo_info": {"ref_prompt": "noise"}}
        return [{**fresh, "unique_id": f"noise-{page}"}]

    async with chain(tmp_path, "chanjing", query_pace=2000.0) as ours:
        ours.patience = replace(LATER, unclean=1)
        ours.middle.deeds["submit"] = {2: instead(b"", after=True)}
        ours.middle.deeds["query"] = listed(endless)
        told = await ours.run(2)
        assert (told.exit, told.states) == (5, ["done", "in_doubt"])
        assert ours.middle.calls["query"] <= 200 + 10
        assert len(ours.accepted) == 2
        ours.middle.deeds.clear()
        ours.paid_once(await ours.run(2), 2)


@pytest.mark.parametrize("taken", [True, False], ids=["accepted", "not accepted"])
async def test_fv15_other_peoples_tasks_are_neither_adopted_nor_fetched(tmp_path, taken):
    """Strangers with other requests of today, and with ours of an hour ago."""
    async with chain(tmp_path, "chanjing") as ours:
        other = [{**request("chanjing", number), "ref_prompt": f"theirs {number}"} for number in range(4)]
        strangers = await ours.elsewhere(*other, request("chanjing", 2), request("chanjing", 3))

        def old(rows, page):
            rows = rows if page == 1 else []
            return [{**row, "create_time": row["create_time"] - 3600 * (row["unique_id"] in strangers)} for row in rows]

        ours.middle.deeds["submit"] = {2: instead(b"", after=taken)}
        ours.middle.deeds["query"] = listed(old)
        told = await ours.run(3)
        assert told.states == ["done"] * 3
        assert {task["remote_id"] for task in told.tasks}.isdisjoint(strangers)
        assert len(ours.accepted) == len(strangers) + 3
        fetched = " ".join(call.path for call in ours.middle.seen["file"])
        assert not any(stranger in fetched for stranger in strangers)


async def test_fv16_a_task_that_was_cancelled_in_the_console_has_failed_and_is_not_bought_again(tmp_path):
    def cancelled(body):
        rows = [{**row, "progress_desc": "Cancelled", "output_url": []} for row in body["data"]["list"]]
        return {**body, "data": {**body["data"], "list": rows}}

    async with chain(tmp_path, "chanjing") as ours:
        ours.middle.deeds["query"] = changed(cancelled)
        told = await ours.run(2)
        assert (told.exit, told.states) == (3, ["failed"] * 2)
        assert (await ours.run(2)).states == ["failed"] * 2
        assert ours.middle.calls["submit"] == 2


async def test_fv16_a_duplicate_that_the_provider_made_is_shown_by_an_audit(tmp_path):
    async with chain(tmp_path, external_id_unique=False) as ours:
        ours.middle.deeds["submit"] = {1: _twice}
        told = await ours.run(2, audited=True)
        assert told.states == ["done"] * 2
        (finding,) = told.audit.findings
        assert (finding.kind, finding.key) == ("duplicate", told.tasks[0]["key"])
        assert finding.remote_id in {task.id for task in ours.accepted} - {task["remote_id"] for task in told.tasks}


async def _twice(call):
    await call.pass_on()
    await call.forward()
