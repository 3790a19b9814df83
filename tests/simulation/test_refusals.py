"""Refusals in virtual time: one that was charged is never paid twice, and honest ones slow nothing down."""

from __future__ import annotations

from unittest import mock

import pytest

from runner.tasks.fact import Fact
from tests.simulation import provider as providers
from tests.simulation.faults import Crash, Life, Plan
from tests.simulation.provider import EPOCH
from tests.simulation.world import World, play

KINDS = ("kling", "chanjing")
#: submits that an honest provider takes in ten seconds: less than the client begins with
LIMIT = 10


def charging(seed: int, kind: str, *, prior: bool) -> Plan:
    """Return a plan whose provider makes what it refuses, loses answers too, and shows its list more or less late."""
    lives = (Life(crash=Crash("", 20 + 7 * seed % 60)), Life()) if seed % 3 == 0 else ()
    return Plan(
        seed=seed,
        kind=kind,
        prompts=10,
        rate=2.0,
        doubt=120.0,
        lag=(0.0, 0.02, 0.9)[seed % 3],
        takes=(3.0, 40.0),
        submit={"throttled": 0.3, "answer_lost": 0.05},
        charges=True,
        prior=prior,
        lives=lives,
        heals=500.0,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_charged_refusals_are_found(kind):
    """The fast sample of those below."""
    report = play(charging(1, kind, prior=True))
    assert report.violation is None, "\n".join(report.tail)
    assert report.made == 10


@pytest.mark.slow
@pytest.mark.parametrize("prior", [True, False], ids=["calibrated", "first use"])
@pytest.mark.parametrize("kind", KINDS)
def test_charged_refusals_are_never_paid_twice(kind, prior):
    for seed in range(16):
        report = play(charging(seed, kind, prior=prior))
        assert report.violation is None, f"seed {seed}: {report.violation}\n" + "\n".join(report.tail)


class Honest:
    """A provider that refuses what exceeds its limit, and nothing else."""

    def __init__(self) -> None:
        self._taken: list[float] = []

    def __call__(self, provider) -> str | None:
        now = provider.now()
        self._taken = [at for at in self._taken if at > now - 10.0]
        if len(self._taken) >= LIMIT:
            return "throttled"
        self._taken.append(now)
        return None


def honest(kind: str, seed: int, tmp_path, *, measured: bool, prompts: int = 120):
    """Play an honest account whose refusals are measured, or not. Return makespan, requests and final states."""
    plan = Plan(seed=seed, kind=kind, prompts=prompts, rate=2.0, doubt=300.0, lag=0.004, takes=(20.0, 60.0))
    directory = tmp_path / f"{seed} {measured}"
    directory.mkdir()
    world = World(plan, directory)
    if measured:
        group, code = next(iter(world.facts)), {"kling": "1302", "chanjing": "40001"}[kind]
        fact = Fact("refusal", "measured", "image", subject=f"{code} throttled", n=2, first_at=EPOCH, last_at=EPOCH)
        world.fact_store._known[group] = {fact.key: fact}
    limit = Honest()

    def submit_fault(provider):
        return limit(provider)

    with (
        mock.patch.object(providers.Provider, "_submit_fault", submit_fault),
        mock.patch.object(providers.Provider, "retry_after", return_value={}),
    ):
        report = world.play()
    assert report.violation is None, report.violation
    assert report.states == {"done": prompts}
    return report.ended[0], sum(count for (phase, _, _), count in report.requests.items() if phase == "lookup")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_honest_throttling_is_not_slower(kind, tmp_path):
    """With and without what is known: makespan differs by one per cent, and the look-up costs a few readings."""
    seeds = range(10)  # a single one may differ by some per cent, either way, by chance
    with_facts = [honest(kind, seed, tmp_path, measured=True) for seed in seeds]
    without = [honest(kind, seed, tmp_path, measured=False) for seed in seeds]
    makespan = sum(each[0] for each in without) / sum(each[0] for each in with_facts)
    calls = sum(each[1] for each in without) - sum(each[1] for each in with_facts)
    print(f"{kind}: makespan x {makespan:.4f}, {calls / len(seeds):.1f} readings more a run, {with_facts} {without}")
    assert makespan <= 1.01
    assert calls <= 3 * len(seeds)
