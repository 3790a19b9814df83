"""Refusals of submits: providers that charge and refuse, and honest ones that refuse often."""

from __future__ import annotations

import json

import pytest

from tests.whole.conftest import buy_before, images, sandbox

FAST = ("--seconds", "0.1,0.3", "--no-external-id-unique")
PROVIDERS = {"kling": "image/kling-v2-1", "chanjing": "kling-v2-1"}
PROMPT = {"kling": "prompt", "chanjing": "ref_prompt"}
CHARGED = {
    "too fast": "refuse_after_charge",
    "window": "refuse_window_after_charge",
    "content": "refuse_content_after_charge",
    "credit": "refuse_credit_after_charge",
}


def check_owners(desk, box, provider):
    owners = {task["id"]: task["request"] for task in box.accepted}
    for line in desk.results():
        if line["remote_id"] is not None:
            assert owners[line["remote_id"]][PROMPT[provider]] == line["request"][PROMPT[provider]]


@pytest.mark.slow
@pytest.mark.parametrize("refusal", CHARGED)
@pytest.mark.parametrize("calibrated", [True, False], ids=["calibrated", "first use"])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_refusal_after_the_charge_is_not_paid_twice(desk, provider, calibrated, refusal):
    """Six of twelve are made and refused. All are found, and the code means doubt from then on."""
    desk.write("job.yaml", images(12, provider=provider, model=PROVIDERS[provider]))
    fault = f"{CHARGED[refusal]}=@{'' if calibrated else '3,'}5,6,7,9,12"
    with sandbox(*FAST, "--fault", fault) as box:
        desk.env = box.env
        if calibrated:
            buy_before(desk, box, provider, PROVIDERS[provider])
        for _ in range(3):
            summary = desk.job()
            if summary["exit_code"] == 0:
                break
        assert box.stats["duplicates"] == 0, f"paid twice: {summary}"
        assert summary["counts"] == {"done": 12}
        check_owners(desk, box, provider)


@pytest.mark.slow
@pytest.mark.parametrize("provider", PROVIDERS)
def test_honest_throttling_costs_one_look_up(desk, provider):
    """Five of 24 submits are refused. What the account pays for it is one look-up, and none in its next run."""
    desk.write("job.yaml", images(24, provider=provider, model=PROVIDERS[provider]))
    with sandbox(*FAST, "--fault", "throttle=@3,6,9,15,22") as box:
        desk.env = box.env
        buy_before(desk, box, provider, PROVIDERS[provider])
        before = lists(box)
        assert desk.job()["counts"] == {"done": 24}
        looked = lists(box) - before
        assert looked <= 6, "a look-up reads the list twice"
        box.change(faults={"throttle": [3, 6, 9]})
        desk.write("again.yaml", images(12, provider=provider, model=PROVIDERS[provider]).replace("thing", "more"))
        assert desk.job("again.yaml")["counts"] == {"done": 12}
        assert lists(box) - before == looked
        assert box.stats["duplicates"] == 0


def lists(box) -> int:
    """Return how often a list was read. Chanjing's polls are readings of it too, so there none is counted."""
    return box.stats["requests"].get("GET /v1/images/generations", 0)


@pytest.mark.slow
def test_a_run_that_ends_with_refused_tasks_says_so(desk):
    """The last submit is refused, no later one can tell: the screens say what it was, and what happens next."""
    desk.write("job.yaml", images(3, provider="kling", model=PROVIDERS["kling"], more=WITNESSED))
    with sandbox(*FAST, "--fault", "throttle=@3") as box:
        desk.env = box.env
        summary = desk.job()
        assert (summary["exit_code"], summary["counts"]) == (5, {"done": 2, "in_doubt": 1})
        assert summary["suspects"] == {"1302": 1}
        assert summary["next"].startswith("runner run job.yaml first looks up what was refused")
        words = "1 refused (1302): perhaps paid for all the same; looked up before anything is sent again"
        assert words in desk.run("run", "job.yaml").stdout
        assert words in desk.run("status", "job.yaml").stdout
        assert json.loads(desk.run("status", "job.yaml", "--json").stdout)["suspects"] == {"1302": 1}
        assert json.loads(desk.run("plan", "job.yaml", "--json").stdout)["suspects"] == {"1302": 1}
        assert "refused    1 before (1302), perhaps paid for all the same" in desk.run("plan", "job.yaml").stdout


@pytest.mark.slow
def test_plan_names_refusals_that_were_charged(desk):
    desk.write("job.yaml", images(12, provider="kling", model=PROVIDERS["kling"]))
    with sandbox(*FAST, "--fault", "refuse_after_charge=@5,6") as box:
        desk.env = box.env
        buy_before(desk, box, "kling", PROVIDERS["kling"])
        assert desk.job()["counts"] == {"done": 12}
        desk.write("more.yaml", images(3, provider="kling", model=PROVIDERS["kling"]).replace("thing", "more"))
        assert "kling: a task was made although it was refused (1302)" in " ".join(
            desk.run("plan", "more.yaml").stdout.split()
        )
        report = json.loads(desk.run("plan", "more.yaml", "--json").stdout)
        assert report["charged_refusals"] == [{"provider": "kling", "codes": ["1302"]}]
        assert report["distrusted"] == []


WITNESSED = "retry: {doubt: 1s, absence: witnessed}"
LATE = ("--list-lag-s", "4", "--fault", "lost_reply=@4,7", "--fault", "refuse_after_charge=@2,5,9")


@pytest.mark.slow
@pytest.mark.parametrize("provider", PROVIDERS)
def test_cap_of_12_is_never_charged_more(desk, provider):
    """Answers are lost, refusals charged, and the list is later than the quiet time: 16 were charged before."""
    text = images(20, provider=provider, model=PROVIDERS[provider])
    desk.write("job.yaml", text.replace("limits: {", "cost: 1\nlimits: {max_cost: 12, "))
    with sandbox(*FAST, *LATE) as box:
        desk.env = box.env
        for _ in range(3):
            summary = desk.job()
            assert sum(task["charge"] for task in box.accepted) <= 12, summary
        assert box.stats["duplicates"] == 0
