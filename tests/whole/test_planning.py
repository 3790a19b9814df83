"""`plan` shows each task as new, kept, changed (with field, old and new value) or removed."""

from __future__ import annotations

import json

import pytest

from .conftest import images, sandbox

FAST = ("--seconds", "0.1,0.2")


@pytest.fixture
def done(desk):
    """Run a job of four tasks to its end."""
    desk.write("job.yaml", images(4))
    with sandbox(*FAST) as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"done": 4}
    return (desk.root / "job.yaml").read_text()


def planned(desk):
    return json.loads(desk.run("plan", "job.yaml", "--json").stdout)


@pytest.mark.slow
def test_edited_prompt_is_a_changed_task_and_keeps_old_one(desk, done):
    """An edited prompt is a changed task and the old one is kept."""
    desk.write("job.yaml", done.replace("thing 2", "something else"))
    report = planned(desk)
    assert (report["new"], report["known"], report["gone"]) == (1, {"done": 3}, {"done": 1})
    (change,) = report["changed"]
    assert (change["index"], change["was_state"]) == (3, "done")
    assert change["fields"] == {"ref_prompt": {"was": "thing 2", "is": "something else"}}
    text = desk.run("plan", "job.yaml").stdout
    assert "ref_prompt: thing 2 → something else" in text
    assert "1 done: no longer in the manifest; what was bought is kept" in text


@pytest.mark.slow
def test_changed_parameter_changes_only_that_field(desk, done):
    desk.write("job.yaml", done.replace('"1:1"', '"16:9"'))
    report = planned(desk)
    assert (report["new"], report["gone"]) == (4, {"done": 4})
    assert [change["fields"] for change in report["changed"]] == [{"aspect_ratio": {"was": "1:1", "is": "16:9"}}] * 4


@pytest.mark.slow
def test_changed_model_is_shown_as_such(desk, done):
    desk.write("job.yaml", done.replace("kling-v2-1", "kling-v2"))
    assert planned(desk)["changed"][0]["fields"] == {"model": {"was": "kling-v2-1", "is": "kling-v2"}}


@pytest.mark.slow
def test_row_inserted_in_front_changes_nothing(desk, done):
    desk.write("job.yaml", done.replace("items:\n", "items:\n  - {subject: first}\n"))
    report = planned(desk)
    assert (report["new"], report["known"], report["gone"], report["changed"]) == (1, {"done": 4}, {}, [])


@pytest.mark.slow
def test_edited_row_behind_new_row_is_recognised(desk, done):
    """The row has the same variables at another position."""
    desk.write("job.yaml", done.replace("items:\n", "items:\n  - {subject: first}\n").replace("1:1", "16:9"))
    report = planned(desk)
    assert report["new"] == 5
    assert {tuple(change["fields"]) for change in report["changed"]} == {("aspect_ratio",)}


@pytest.mark.slow
def test_removed_rows_return_free_of_charge(desk, done):
    desk.write("job.yaml", done.replace("  - {subject: thing 3}\n", ""))
    report = planned(desk)
    assert (report["new"], report["known"], report["gone"]) == (0, {"done": 3}, {"done": 1})
    desk.write("job.yaml", done)
    assert (planned(desk)["new"], planned(desk)["gone"]) == (0, {})


@pytest.mark.slow
def test_bought_removed_rows_are_shown_in_count(desk):
    """Rows that were bought and left the manifest are shown where they are counted."""
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


@pytest.mark.slow
def test_cap_is_shown_beside_spending(desk):
    capped = "cost: 4\n" + images(3).replace("{qps: 50}", "{qps: 50, max_cost: 17}")
    desk.write("job.yaml", capped)
    assert "  price      12 beans (max_cost 17)" in desk.run("plan", "job.yaml").stdout.splitlines()
    with sandbox(*FAST) as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"done": 3}
    for count, report in (
        (4, "4 beans (max_cost 17, 12 of it spent)"),
        (5, "8 beans (max_cost 17, 12 of it spent: not enough for all)"),
    ):
        desk.write("job.yaml", "cost: 4\n" + images(count).replace("{qps: 50}", "{qps: 50, max_cost: 17}"))
        assert f"  price      {report}" in desk.run("plan", "job.yaml").stdout.splitlines()
    assert planned(desk)["spent"] == 12


@pytest.mark.slow
def test_every_task_has_a_line(desk, done):
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


@pytest.mark.slow
def test_plan_shows_cost_and_unknown_prices(desk):
    desk.write("job.yaml", images(3))
    report = planned(desk)
    assert (report["cost"], report["unpriced"]) == (None, ["kling-v2-1"])
    assert "unknown for kling-v2-1" in desk.run("plan", "job.yaml").stdout
    desk.write("job.yaml", "cost: {kling-v2-1: 2.5}\n" + images(3))
    report = planned(desk)
    assert (report["cost"], report["unit"]) == (7.5, "beans")
    assert "price      7.5 beans" in desk.run("plan", "job.yaml").stdout


def test_catalogue_price_depends_on_request(desk):
    text = images(2, model="tx_kling-v3-0-text2video").replace('aspect_ratio: "1:1"', "duration: 10, clarity: 1080")
    desk.write("job.yaml", text)
    assert planned(desk)["cost"] == 2 * 35 * 10
