"""Refusals that are looked up, doubts without a readable list, and witnesses past the brake: the whole chain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.sandbox.server import Faults
from runner.scheduler.settlement import Settlement
from runner.tasks.events import Claimed, Found, Interrupted, Missing, RetryableFailure, Suspected

from .chain import chain
from .server import answer, instead

PAIR = ("kling", "chanjing")
#: nothing is accepted, and the front end says that it did not work
UNSENT = instead(answer(b"", 500), end="open")
#: accepted, and the front end says that it did not work
LOST = instead(answer(b"", 500), after=True, end="open")


def faults(**plans):
    return {"faults": Faults({name: frozenset(numbers) for name, numbers in plans.items()})}


@pytest.mark.parametrize("provider", PAIR)
async def test_charged_refusal_is_adopted_and_means_doubt_from_then_on(tmp_path, provider):
    async with chain(tmp_path, provider, external_id_unique=False, **faults(refuse_after_charge={2})) as ours:
        result = await ours.run(3)
        ours.paid_once(result, 3)
        assert len(result.events_of(Suspected)) == 1
        assert not result.events_of(Interrupted)
        assert sum("made the task all the same" in warning for warning in result.warnings) == 1
        ours.sandbox.change(faults={"refuse_after_charge": [2]})
        again = await ours.run(6)
        ours.paid_once(again, 6)
        assert not again.events_of(Suspected)
        assert len(again.events_of(Interrupted)) == 1
        assert not any("made the task" in warning for warning in again.warnings), "it was told before"


@pytest.mark.parametrize("provider", PAIR)
async def test_free_refusals_are_looked_up_twice_and_then_believed(tmp_path, provider):
    async with chain(tmp_path, provider, workers=1, **faults(throttle={2, 4, 6, 8})) as ours:
        result = await ours.run(6)
        ours.paid_once(result, 6)
        assert result.events_of(Suspected)
        assert [task["doubts"] for task in result.tasks] == [0] * 6
        (fact,) = [fact for fact in await ours.facts(*ours.fact_store._known, 0.0) if fact.name == "refusal"]
        assert (fact.state, fact.n >= 2) == ("measured", True)
        ours.sandbox.change(faults={"throttle": [1, 2]})
        again = await ours.run(8)
        ours.paid_once(again, 8)
        assert again.events_of(RetryableFailure)
        assert not again.events_of(Suspected)


async def test_gateway_believes_a_refusal(tmp_path):
    async with chain(tmp_path, "kling-gateway", **faults(throttle={1})) as ours:
        result = await ours.run(3)
        ours.paid_once(result, 3)
        assert not result.events_of(Suspected)


async def test_contradiction_is_kept_before_the_task_is_adopted(tmp_path, monkeypatch):
    """A run that dies between the two finds the task again, and the account knows already."""
    settle = Settlement.settle

    async def die(self, before, event):
        if isinstance(event, Found):
            raise MemoryError  # noqa: TRY004 - it ends a run, as a kill does
        return await settle(self, before, event)

    async with chain(tmp_path, external_id_unique=False, **faults(refuse_after_charge={2})) as ours:
        monkeypatch.setattr(Settlement, "settle", die)
        with pytest.raises(MemoryError):
            await ours.run(3)
        states = [fact.state for fact in await ours.facts(*ours.fact_store._known, 0.0) if fact.name == "refusal"]
        assert states == ["contradicted"]
        monkeypatch.setattr(Settlement, "settle", settle)
        ours.paid_once(await ours.run(3), 3)


async def test_three_contradictions_stop_submits(tmp_path):
    """Too fast, content and balance were charged within a day: nothing more is bought."""
    kinds = {
        "refuse_after_charge": {1},
        "refuse_content_after_charge": {2},
        "refuse_window_after_charge": {3},
    }
    async with chain(tmp_path, workers=1, external_id_unique=False, **faults(**kinds)) as ours:
        first = await ours.run(8)
        again = await ours.run(8)
        assert again.exit == 5
        assert "--trust-less" in " ".join(again.reasons)
        assert not again.events_of(Claimed)
        assert ours.sandbox.ledger.duplicates() == 0
        assert first.states.count("done") == again.states.count("done") < 8


async def test_list_that_can_never_be_read_ends_held(tmp_path):
    async with chain(tmp_path, "chanjing") as ours:
        ours.policy = replace(ours.policy, max_unclean=2, witness_patience=-1.0)
        ours.middle.deeds["submit"] = {2: LOST}

        async def list_fails(call):
            await (call.say(answer(b"", 500)) if b'"unique_ids"' not in call.body else call.pass_on())

        ours.middle.deeds["query"] = list_fails
        result = await ours.run(3)
        assert (result.exit, sorted(result.states)) == (4, ["done", "done", "held"])
        (held,) = [task for task in result.tasks if task["state"] == "held"]
        assert "no answer that tells whether it was accepted" in held["message"]


@pytest.mark.parametrize("provider", PAIR)
async def test_witness_goes_out_past_the_brake(tmp_path, provider):
    """Three lost answers stop submits, and without a later task none of them can be judged."""
    async with chain(tmp_path, provider, workers=1) as ours:
        ours.policy = replace(ours.policy, witnessed_only=True)
        ours.middle.deeds["submit"] = {2: UNSENT, 3: UNSENT, 4: UNSENT}
        result = await ours.run(8)
        assert result.exit in {0, 5}
        assert set(result.states) <= {"done", "in_doubt"}
        assert result.states.count("done") > 5
        assert ours.sandbox.ledger.duplicates() == 0
        events = list(enumerate(event for _, event, _ in result.changes))
        third = [number for number, event in events if isinstance(event, Interrupted)][2]
        out = next(number for number, event in events if number > third and isinstance(event, Claimed))
        believed = [each for each in events if isinstance(each[1], Missing) and each[1].quiet and each[1].witnessed]
        assert third < out < believed[0][0]
        assert all(event.refundable for _, event in believed)


async def test_without_a_later_task_nothing_is_believed(tmp_path):
    """The last answer is lost: by the lag it would be bought again at once."""
    async with chain(tmp_path, "kling", workers=1) as ours:
        ours.policy = replace(ours.policy, witnessed_only=True)
        ours.middle.deeds["submit"] = {3: UNSENT}
        result = await ours.run(3)
        assert (result.exit, result.states) == (5, ["done", "done", "in_doubt"])
        ours.policy = replace(ours.policy, witnessed_only=False)
        ours.paid_once(await ours.run(3), 3)
