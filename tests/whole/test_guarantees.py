"""What the screens say of an account after real runs: its class now, what is claimed, and what would raise it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

from .conftest import images, sandbox

FAST = ("--seconds", "0.1,0.3")
MODELS = {"kling": "image/kling-v2-1", "chanjing": "kling-v2-1", "kling-gateway": "kling-v2-1"}
DAY = 86_400
WIDTH = 80


def bought(desk, provider: str, *options: str, count: int = 4) -> dict:
    """Buy in a sandbox with these options, and return the summary. The account stays known to the desk."""
    desk.write("job.yaml", images(count, provider=provider, model=MODELS[provider]))
    with sandbox(*FAST, *options) as box:
        desk.env = box.env
        return desk.job()


def guarantee(summary: dict) -> dict:
    (found,) = summary["guarantees"]
    return found


def shown(desk, *words: str, env=None) -> str:
    """Return what a verb prints. None of its lines is too long for a narrow terminal."""
    done = desk.run(*words, env=env)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= WIDTH
    return done.stdout


def age(desk, days: float) -> None:
    """Make everything that is known of the account so much older."""
    (path,) = desk.root.glob("home/accounts/*/facts.db")
    seconds = days * DAY
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("update known set first_at = first_at - ?, last_at = last_at - ?", (seconds, seconds))
        for table in ("fact", "echo"):
            connection.execute(f"update {table} set at = at - ?", (seconds,))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("provider", "level", "text"),
    [("kling", 2, "class 2 by reference (measured "), ("chanjing", 1, "class 1 by content (measured ")],
)
def test_honest_list_is_measured_by_one_run(desk, provider, level, text):
    summary = bought(desk, provider)
    found = guarantee(summary)
    assert (found["class"], found["basis"], found["claimed"]) == (level, "measured", level)
    assert found["tasks"] == 4
    assert text in shown(desk, "providers", provider)
    table = shown(desk, "providers", provider, "--account")
    assert "all of 4 (" in table
    assert "newest first (" in table
    assert "4 rows at once (" in table
    assert ("reference in the list shown         yes, on 4 tasks" in table) == (level == 2)
    assert ("ref_prompt            as sent       as sent, 1 model" in table) == (level == 1)
    assert text in desk.run("doctor").stdout
    desk.write("more.yaml", images(6, provider=provider, model=MODELS[provider]).replace("thing", "more"))
    assert text in desk.run("plan", "more.yaml").stdout
    assert "one by one" not in desk.run("plan", "more.yaml").stdout


@pytest.mark.slow
def test_two_tasks_are_too_few_for_a_class(desk):
    """Their lag was not measured, and nobody calls that a class."""
    assert guarantee(bought(desk, "kling", count=2))["basis"] == "unknown"
    assert "image, text2video, image2video: nothing known yet" in shown(desk, "providers", "kling")


@pytest.mark.slow
def test_old_facts_are_said_to_be_old_and_measured_again(desk):
    desk.write("job.yaml", images(4, provider="kling", model=MODELS["kling"]))
    desk.write("more.yaml", images(4, provider="kling", model=MODELS["kling"]).replace("thing", "more"))
    with sandbox(*FAST) as box:
        desk.env = box.env
        desk.job()
        age(desk, 41)
        assert "not known any more: last measured 41 d ago" in shown(desk, "providers", "kling")
        assert "yes, on 4 tasks (41 d ago, too old)" in shown(desk, "providers", "kling", "--account")
        doctor = desk.run("doctor").stdout
        assert "warning  kling         image: not known any more: last measured 41 d ago" in doctor
        assert "→ The next run measures it again with its first tasks (free)." in doctor
        assert guarantee(desk.job("more.yaml"))["class"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("provider", "lie", "why"),
    [
        ("kling", "no_reference=1", "the list does not show our reference"),
        ("chanjing", "list_hides_prompt=1", "the list does not show ref_prompt of kling-v2-1 as it was sent"),
        ("chanjing", "list_no_times=1", "the list's times cannot be read"),
        ("kling", "list_holes=1", "of ours"),
    ],
)
def test_lie_is_told_once_and_takes_the_class_away(desk, provider, lie, why):
    summary = bought(desk, provider, "--fault", lie, "--fault", "lost_reply=@5", "--fault", "reset_before=@7", count=10)
    found = guarantee(summary)
    assert (found["class"], found["basis"]) == (0, "contradicted")
    assert why in found["why"]
    assert "runner probe" in found["raised_by"]
    text = " ".join(shown(desk, "providers", provider).split())
    assert f"class 0 held: {found['why']}; seen just now" in text
    table = shown(desk, "providers", provider, "--account")
    assert "NO, " in table or "unreadable (" in table
    assert "Lost answers are held. To measure it anew: runner probe" in desk.run("doctor").stdout


@pytest.mark.slow
def test_contradiction_is_told_during_the_run_and_not_again(desk):
    desk.write("job.yaml", images(8, provider="kling", model=MODELS["kling"]))
    desk.write("more.yaml", images(8, provider="kling", model=MODELS["kling"]).replace("thing", "more"))
    notice = "kling image: the list does not show our reference on"
    with sandbox(*FAST, "--fault", "no_reference=1", "--fault", "lost_reply=@5,13") as box:
        desk.env = box.env
        first = desk.run("run", "job.yaml")
        assert first.stderr.count(notice) == 1
        assert "from now on lost answers are held" in first.stderr
        assert desk.run("run", "more.yaml").stderr.count(notice) == 0


@pytest.mark.slow
def test_purchases_that_rest_on_a_contradicted_list_are_counted(desk):
    """One was bought once more because the list did not show it, and then that list turns out to drop references."""
    desk.write("job.yaml", images(6, provider="kling", model=MODELS["kling"]))
    with sandbox(*FAST, "--fault", "reset_before=@4") as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"done": 6}
        desk.write("job.yaml", images(14, provider="kling", model=MODELS["kling"]))
        box.change(faults={"no_reference": 1, "lost_reply": "@5"})
        told = desk.run("run", "job.yaml").stderr
        assert "from now on lost answers are held. 1 task of today rests on it: runner audit" in told
        audited = desk.run("audit", "job.yaml")
        assert "1 purchase may be paid for twice, by what was contradicted within a day" in audited.stdout
        (bought,) = json.loads(desk.run("audit", "job.yaml", "--json").stdout)["contradicted"]
        assert bought["remote_id"] in {line["remote_id"] for line in desk.results()}
        assert bought["why"].startswith("bought once more because the list did not show it; the list does not show our")


@pytest.mark.slow
def test_gateway_says_that_nothing_can_be_known(desk):
    found = guarantee(bought(desk, "kling-gateway", count=2))
    assert (found["class"], found["basis"], found["claimed"]) == (0, "claimed", 0)
    text = shown(desk, "providers", "kling-gateway", "--account")
    assert "class 0 held: it keeps no record that can be read" in text


@pytest.mark.slow
def test_plan_counts_tasks_with_fields_that_the_list_hides(desk):
    more = 'ref_img_url: ["https://example.com/a.png"], prompt'
    manifest = images(14, model="doubao-seedream-4.0").replace("{prompt", f"{{{more}")
    bought(desk, "chanjing")
    desk.write("more.yaml", manifest)
    report = json.loads(desk.run("plan", "more.yaml", "--json").stdout)
    (hidden,) = report["hidden"]
    assert (hidden["tasks"], hidden["fields"], hidden["shared_account"]) == (14, ["ref_img_url"], False)
    assert report["one_by_one"] == []
    text = " ".join(desk.run("plan", "more.yaml").stdout.split())
    assert "14 tasks have a field that the list does not show (ref_img_url): a lost answer among them is held" in text


@pytest.mark.slow
def test_facts_of_an_earlier_version_are_read(desk):
    """Without the table of facts with a state, a class cannot be known, and the next run makes the table."""
    desk.write("job.yaml", images(4, provider="kling", model=MODELS["kling"]))
    desk.write("more.yaml", images(4, provider="kling", model=MODELS["kling"]).replace("thing", "more"))
    with sandbox(*FAST) as box:
        desk.env = box.env
        desk.job()
        (path,) = desk.root.glob("home/accounts/*/facts.db")
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("drop table known")
        text = shown(desk, "providers", "kling", "--account")
        assert "worst of 4" in text
        assert "reference in the list shown         not known yet" in text
        assert guarantee(desk.job("more.yaml"))["class"] == 2


@pytest.mark.slow
def test_contradiction_holds_for_every_job_of_the_account(desk):
    """A list that was seen without our references proves nothing to a later job, though it shows them again.

    The tasks that it showed so are too old by then to be looked for.
    """
    bought_before = images(6, provider="kling", model=MODELS["kling"])
    desk.write("before.yaml", bought_before.replace("thing", "earlier"))
    desk.write("job.yaml", images(8, provider="kling", model=MODELS["kling"]))
    with sandbox(*FAST, "--fault", "no_reference=1", "--fault", "lost_reply=@6") as box:
        desk.env = box.env
        assert desk.job("before.yaml")["counts"] == {"done": 5, "held": 1}
        (path,) = desk.root.glob("home/accounts/*/facts.db")
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(
                "update witness set claimed_at = claimed_at - ?, answered_at = answered_at - ?, boot = 'old'",
                (2 * DAY, 2 * DAY),
            )
        box.change(faults={"reset_before": "@3"})
        summary = desk.job()
        assert summary["counts"] == {"done": 7, "held": 1}
        assert guarantee(summary)["basis"] == "contradicted"
