"""`plan` says of each task whether it is new, kept, changed (which field, from what to what) or gone."""

from __future__ import annotations

import json

import pytest

from .conftest import images, sandbox

FAST = ("--seconds", "0.1,0.2")


@pytest.fixture
def done(desk):
    """A job of four that is finished."""
    desk.write("job.yaml", images(4))
    with sandbox(*FAST) as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"done": 4}
    return (desk.root / "job.yaml").read_text()


def planned(desk):
    return json.loads(desk.run("plan", "job.yaml", "--json").stdout)


def test_an_edited_prompt_is_a_changed_task_and_the_old_one_is_kept(desk, done):
    desk.write("job.yaml", done.replace("thing 2", "something else"))
    told = planned(desk)
    assert (told["new"], told["known"], told["gone"]) == (1, {"done": 3}, {"done": 1})
    (change,) = told["changed"]
    assert (change["index"], change["was_state"]) == (3, "done")
    assert change["fields"] == {"ref_prompt": {"was": "thing 2", "is": "something else"}}
    text = desk.run("plan", "job.yaml").stdout
    assert "ref_prompt: thing 2 → something else" in text
    assert "1 done: no longer in the manifest; what was bought is kept" in text


def test_another_parameter_changes_every_task_by_just_that_field(desk, done):
    desk.write("job.yaml", done.replace('"1:1"', '"16:9"'))
    told = planned(desk)
    assert (told["new"], told["gone"]) == (4, {"done": 4})
    assert [change["fields"] for change in told["changed"]] == [{"aspect_ratio": {"was": "1:1", "is": "16:9"}}] * 4


def test_another_model_is_a_change_of_the_model(desk, done):
    desk.write("job.yaml", done.replace("kling-v2-1", "kling-v2"))
    assert planned(desk)["changed"][0]["fields"] == {"model": {"was": "kling-v2-1", "is": "kling-v2"}}


def test_a_row_in_front_changes_nothing(desk, done):
    desk.write("job.yaml", done.replace("items:\n", "items:\n  - {subject: first}\n"))
    told = planned(desk)
    assert (told["new"], told["known"], told["gone"], told["changed"]) == (1, {"done": 4}, {}, [])


def test_an_edited_row_behind_a_new_one_is_still_seen_as_what_it_was(desk, done):
    """The row's variables are the same, although its place is not."""
    desk.write("job.yaml", done.replace("items:\n", "items:\n  - {subject: first}\n").replace("1:1", "16:9"))
    told = planned(desk)
    assert told["new"] == 5
    assert {tuple(change["fields"]) for change in told["changed"]} == {("aspect_ratio",)}


def test_rows_that_left_are_shown_and_come_back_free_of_charge(desk, done):
    desk.write("job.yaml", done.replace("  - {subject: thing 3}\n", ""))
    told = planned(desk)
    assert (told["new"], told["known"], told["gone"]) == (0, {"done": 3}, {"done": 1})
    desk.write("job.yaml", done)
    assert (planned(desk)["new"], planned(desk)["gone"]) == (0, {})


def test_what_was_bought_and_left_the_manifest_is_told_where_it_is_counted(desk):
    left = "  1 of them left the manifest: what was bought is kept"
    desk.write("job.yaml", "cost: 4\n" + images(3))
    with sandbox(*FAST) as box:
        desk.env = box.env
        assert "left the manifest" not in desk.run("run", "job.yaml").stdout
        desk.write("job.yaml", "cost: 4\n" + images(2))
        ended = desk.run("run", "job.yaml")
        assert "job: 3/3 done · cost 12 beans" in ended.stderr.splitlines()
        assert ended.stdout.splitlines()[0] == "job: 3 done"
        assert left in ended.stdout.splitlines()
        assert left in desk.run("status", "job.yaml").stdout.splitlines()


def test_the_cap_stands_beside_what_is_spent_of_it(desk):
    capped = "cost: 4\n" + images(3).replace("{qps: 50}", "{qps: 50, max_cost: 17}")
    desk.write("job.yaml", capped)
    assert "  price      12 beans (max_cost 17)" in desk.run("plan", "job.yaml").stdout.splitlines()
    with sandbox(*FAST) as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"done": 3}
    for count, told in (
        (4, "4 beans (max_cost 17, 12 of it spent)"),
        (5, "8 beans (max_cost 17, 12 of it spent: not enough for all)"),
    ):
        desk.write("job.yaml", "cost: 4\n" + images(count).replace("{qps: 50}", "{qps: 50, max_cost: 17}"))
        assert f"  price      {told}" in desk.run("plan", "job.yaml").stdout.splitlines()
    assert planned(desk)["spent"] == 12


def test_every_task_has_its_line(desk, done):
    desk.write("job.yaml", done.replace("thing 2", "other").replace("  - {subject: thing 3}\n", ""))
    lines = [json.loads(line) for line in desk.run("plan", "job.yaml", "--tasks", "--json").stdout.splitlines()]
    *tasks, plan = lines
    assert [task["plan"] for task in tasks] == ["kept", "kept", "changed", "gone"]
    assert (tasks[2]["fields"], tasks[2]["was_state"], tasks[2]["was"]) == (
        ["ref_prompt"],
        "done",
        plan["changed"][0]["was"],
    )
    assert plan["new"] == 1
    text = desk.run("plan", "job.yaml", "--tasks").stdout.splitlines()
    assert [line.split()[1] for line in text[:4]] == ["kept", "kept", "changed", "gone"]
    assert text[2].endswith("  changed (ref_prompt; was done)  0003-other")


def test_a_plan_says_what_it_costs_and_what_nobody_knows(desk):
    desk.write("job.yaml", images(3))
    told = planned(desk)
    assert (told["cost"], told["unpriced"]) == (None, ["kling-v2-1"])
    assert "unknown for kling-v2-1" in desk.run("plan", "job.yaml").stdout
    desk.write("job.yaml", "cost: {kling-v2-1: 2.5}\n" + images(3))
    told = planned(desk)
    assert (told["cost"], told["unit"]) == (7.5, "beans")
    assert "price      7.5 beans" in desk.run("plan", "job.yaml").stdout


def test_a_price_of_the_catalogue_follows_the_request(desk):
    text = images(2, model="tx_kling-v3-0-text2video").replace('aspect_ratio: "1:1"', "duration: 10, clarity: 1080")
    desk.write("job.yaml", text)
    assert planned(desk)["cost"] == 2 * 35 * 10
