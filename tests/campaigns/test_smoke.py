"""A small campaign for every change, and proof that its oracle finds violations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.campaigns.oracle import Case, find_violations
from tests.campaigns.planner import KINDS, WIDE, Kill, Outlook, Planner
from tests.campaigns.torture import Campaign, main, summary
from tests.campaigns.trial import Trial
from tests.whole.conftest import sandbox

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_thirty_kills_lose_nothing_and_pay_nothing_twice(tmp_path):
    campaign = Campaign(list(KINDS.values()), kills=6, seed=3, hits=0, root=tmp_path, observe=False)
    assert campaign.run(), json.dumps(campaign.figures()["convicted"], indent=2)
    figures = campaign.figures()
    print(summary(figures))
    assert sum(found["kills"] for found in figures["classes"].values()) >= 30


@pytest.mark.slow
@pytest.mark.parametrize("name", WIDE)
def test_kill_with_50_submits_on_the_wire(tmp_path, name):
    """Nothing is lost or paid twice, and no more answers are lost than `plan` said."""
    campaign = Campaign([WIDE[name]], kills=1, seed=3, hits=0, root=tmp_path, kills_per_job=1, jobs=1, observe=False)
    assert campaign.run(), json.dumps(campaign.figures()["convicted"], indent=2)
    (figures,) = campaign.figures()["classes"].values()
    assert figures["kills_by"] == {"wire": 1}
    assert figures["most_doubts"] == figures["doubts"] == 50


def test_campaign_fails_if_failpoint_is_hit_too_rarely(tmp_path):
    kind = KINDS["none"]
    campaign = Campaign([kind], kills=1, seed=3, hits=2, root=tmp_path)
    for point in kind.points:
        campaign.planner.hit(kind, Kill(point, 1))
        assert not campaign.kept
    assert "WANTING renamed: 1 hits" in summary(campaign.figures())
    for point in kind.points:
        campaign.planner.hit(kind, Kill(point, 1))
    assert campaign.kept


@pytest.mark.slow
def test_replay_repeats_the_same_kills(tmp_path, capsys):
    words = ["--keep", str(tmp_path), "--replay", "reference/7/intent committed:1,recovery marked:1"]
    assert main(words) == 0
    assert "2 kills" in capsys.readouterr().out
    assert (tmp_path / "replay/replay.txt").read_text() == "reference/7/intent committed:1,recovery marked:1\n"


# choice of failpoints


def test_impossible_failpoints_are_not_chosen():
    planner, dead = Planner(20), Outlook(queued=0, submitting=0, taken=0, missing=0, unfinished=0)
    assert planner.choose(KINDS["none"], dead, Trial(KINDS["none"], 1, Path()).chance) is None
    chance = Trial(KINDS["list"], 1, Path()).chance
    doubts = replace(dead, taken=2)
    for _ in range(50):
        kill = planner.choose(KINDS["list"], doubts, chance)
        assert kill.point.startswith("adopted")
        assert kill.count <= 2
        assert Kill.parse(str(kill)) == kill
    assert len(planner.wanting(KINDS["none"])) == len(planner.wanting(KINDS["list"])) - 4


# the oracle, with a job that went well and was doctored afterwards


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Case:
    trial = Trial(KINDS["reference"], 5, tmp_path_factory.mktemp("good") / "job")
    assert trial.run(lambda _: None).violations == []
    return trial.case


def convicted(case: Case) -> set[str]:
    return {violation.kind for violation in find_violations(case)}


@pytest.mark.slow
def test_oracle_accepts_correct_job(good):
    assert convicted(good) == set()


def test_oracle_detects_double_payment(good):
    extra = {**good.ledger[0], "id": "1"}
    assert {"double", "orphan"} <= convicted(replace(good, ledger=[*good.ledger, extra]))


def test_oracle_detects_lost_paid_task(good):
    forgotten = {**good.rows[0], "state": "queued", "remote_id": None}
    assert {"orphan", "lost"} <= convicted(replace(good, rows=[forgotten, *good.rows[1:]]))


def test_oracle_detects_unpaid_task(good):
    assert convicted(replace(good, ledger=good.ledger[1:], before_idle=len(good.ledger) - 1)) == {"phantom"}


def test_oracle_detects_unrelated_task(good):
    first, other = good.rows[0], good.rows[-1]
    swapped = [{**first, "remote_id": other["remote_id"]}, *good.rows[1:-1]]
    swapped.append({**other, "remote_id": first["remote_id"]})
    assert {"swapped", "file", "journal"} <= convicted(replace(good, rows=swapped))


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:50] + b"?" + data[51:], lambda _: b""])
def test_oracle_detects_bad_file(good, damage):
    path = good.directory / good.rows[3]["outputs"][0]["file"]
    data = path.read_bytes()
    path.write_bytes(damage(data))
    try:
        assert convicted(good) == {"file"}
    finally:
        path.write_bytes(data)


def test_oracle_detects_unordered_file(good):
    stray = good.directory / "stray.png"
    stray.write_bytes(b"")
    try:
        assert convicted(good) == {"file"}
    finally:
        stray.unlink()


def test_oracle_detects_changed_file(good):
    assert convicted(replace(good, truth={good.rows[0]["remote_id"]: "0" * 64})) == {"file"}


def test_oracle_detects_submit_without_intent(good):
    late = [line for line in good.journal if line["t"] != "intent"]
    late += [{**line, "at": line["at"] + 3600} for line in good.journal if line["t"] == "intent"]
    for by_reference in (True, False):
        assert convicted(replace(good, journal=late, by_reference=by_reference)) == {"journal"}


def test_oracle_detects_purchase_of_idle_run(good):
    assert convicted(replace(good, before_idle=len(good.ledger) - 1)) == {"idle"}
    assert convicted(replace(good, idle={**good.idle, "submitted": 1})) == {"idle"}


def test_oracle_detects_wrong_exit_code(good):
    assert convicted(replace(good, last={**good.last, "exit_code": 4})) == {"exit"}


def test_held_task_accounts_for_one_payment(good):
    row = good.rows[0]
    held = [{**row, "state": "held", "remote_id": None, "outputs": []}, *good.rows[1:]]
    ended = {**good.idle, "exit_code": 4, "in_doubt": [row["key"]], "counts": {"held": 1, "done": len(held) - 1}}
    (good.directory / row["outputs"][0]["file"]).rename(good.directory / "aside")
    try:
        case = replace(good, can_reconcile=False, rows=held, last=ended, idle=ended)
        assert convicted(case) == set()
        assert case.held_and_paid == 1
        assert convicted(replace(case, can_reconcile=True)) == {"orphan"}
        both = replace(case, rows=[held[0], {**held[1], "remote_id": None}, *held[2:]])
        assert "orphan" in convicted(both)
    finally:
        (good.directory / "aside").rename(good.directory / row["outputs"][0]["file"])


def test_oracle_rejects_naive_client(tmp_path, good):
    state = tmp_path / "state.json"
    faults = ("--no-external-id-unique", "--fault", "lost_reply=@3", "--fault", "http_500_after=@6")
    with sandbox("--ledger", str(tmp_path / "ledger.jsonl"), *faults) as box:
        for dies_at in ("2", "0"):
            words = [sys.executable, "-m", "tests.campaigns.naive", str(state), "8", dies_at]
            subprocess.run(words, cwd=ROOT, env={**os.environ, **box.env}, timeout=60, check=False)
        ledger = box.accepted
    known = json.loads(state.read_text())
    assert len(known) == 8
    assert len(ledger) == 8 + 3
    rows = [
        {"ref": prompt, "request": {"prompt": prompt}, "state": "done", "remote_id": remote_id, "outputs": []}
        for prompt, remote_id in known.items()
    ]
    case = replace(
        good, by_reference=False, rows=rows, ledger=ledger, journal=[], directory=tmp_path, before_idle=len(ledger)
    )
    assert {"double", "orphan", "journal"} <= convicted(case)
