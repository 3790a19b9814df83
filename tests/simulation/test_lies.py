"""Providers that differ from their documents, in virtual time, judged by the sandbox's ledger after every event.

Nothing is paid twice, nobody else's task is taken, and what nobody can know is held or in doubt, and told. More of
them: `python -m tests.simulation --lies --seeds 10000`.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle, product
from unittest import mock

import pytest

from runner.providers import responses
from runner.scheduler import row_match
from runner.scheduler.evidence import OwnRows
from runner.scheduler.list_facts import ListFacts
from tests.simulation import world
from tests.simulation.lies import BOTH, LIES, TROUBLES, draw, pairs, plan

USES = {True: "bought before", False: "first use"}
#: seeds, and how many of them are one test
SEEDS, CHUNK = 40, 10
BY_NAME = {lie.name: lie for lie in LIES}
#: what was paid twice or taken from somebody else before there was a rule against it
FOUND = [
    ("chanjing", ("is eight hours behind",), "the last", True),
    ("chanjing", ("shows the neighbour's mark",), "killed", True),
    ("chanjing", ("shows the neighbour's mark",), "the only one", True),
    ("chanjing", ("hides the prompt",), "the only one", True),
    ("chanjing", ("has similar tasks of somebody else",), "the last never arrives", True),
    ("chanjing", ("lags two quiet times", "has ids of the form number"), "the last", True),
    ("kling", ("drops our reference", "is eight hours behind"), "the only one", True),
]


#: the same, of worlds by seed, which differ with every change of `draw`
FOUND_SEEDS = [2209, 2313, 2332, 2759, 2808, 3622, 6667, 8695, 9465, 9489]


def check(kind, lies, trouble, prior):
    report = world.play(plan(kind, lies, trouble, prior=prior))
    story = f"{kind}, {USES[prior]}, {trouble}, {' and '.join(lie.name for lie in lies)}"
    assert report.violation is None, f"{story}: {report.violation}\n" + "\n".join(report.tail)
    ended, states = report.lives[-1], report.states
    assert (ended == "exit 0") <= (set(states) == {"done"}), story
    assert ended in {"exit 0", "exit 3", "exit 4", "exit 5"}, f"{story}: {ended}"
    return report


@pytest.mark.parametrize(("kind", "lies", "trouble", "prior"), FOUND)
def test_lies_that_once_cost_money_cost_none(kind, lies, trouble, prior):
    check(kind, tuple(BY_NAME[lie] for lie in lies), trouble, prior)


def test_of_several_doubts_one_is_bought_again_and_is_the_witness():
    """A list that has become full shows nothing new. The lag alone proves one absence at the most."""
    lost = plan("chanjing", (BY_NAME["shows the oldest three"],), "the last", prior=True)
    report = world.play(replace(lost, prompts=3, script=dict.fromkeys((1, 2, 3), "answer_lost")))
    assert report.violation is None
    assert report.states == {"done": 1, "held": 2}


def _values_only(spec, body, value, compare=responses.compare_echo):
    return {name: same for name, same in compare(spec, body, value).items() if not name.startswith("without")}


#: wrong programs without one of the rules, and the number of what they pay twice or take
MUTANTS = {
    "times are believed": (0, (ListFacts, "time_shift", lambda *_: 0.0)),
    "other jobs' rows are not compared": (2, (world, "proof_of_body", lambda *_: "")),
    "pictures are not compared": (4, (row_match, "compare_echo", _values_only)),
    "late rows teach nothing": (5, (ListFacts, "saw_late", lambda *_: None)),
    "rows without a reference are nobody's": (6, (OwnRows, "has_neighbour", lambda *_: True)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_each_missing_rule_is_noticed(mutant):
    number, (target, name, wrong) = MUTANTS[mutant]
    kind, lies, trouble, prior = FOUND[number]
    with mock.patch.object(target, name, wrong):
        report = world.play(plan(kind, tuple(BY_NAME[lie] for lie in lies), trouble, prior=prior))
    assert report.violation is not None


def test_a_list_that_is_late_for_a_killed_process_is_late_for_the_next():
    with mock.patch.object(ListFacts, "_learn_from_earlier_runs"):
        assert world.play(draw(FOUND_SEEDS[0])).violation is not None


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("trouble", TROUBLES)
def test_honest_sandbox_holds_nothing(kind, trouble):
    """An account that has bought before needs no person; a crash settles itself in the next run."""
    assert set(check(kind, (), trouble, prior=True).states) == {"done"}


@pytest.mark.parametrize("seed", [1, 2, 3, *FOUND_SEEDS])
def test_a_few_lying_worlds_keep_every_invariant(seed):
    report = world.play(draw(seed))
    assert report.violation is None, "\n".join(report.tail)


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("trouble", TROUBLES)
def test_no_lie_costs_money(kind, trouble):
    """Each lie, in turn at the first use of an account and at one that has bought before."""
    told = [lie for lie in LIES if kind in lie.kinds]
    for number, lie in enumerate(told, list(TROUBLES).index(trouble)):
        check(kind, (lie,), trouble, prior=bool(number % 2))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
@pytest.mark.parametrize("kind", BOTH)
def test_no_pair_of_lies_costs_money(kind, part):
    """Each pair once, with the troubles and the uses of the account in turn."""
    for (lies, (trouble, prior)), number in zip(
        zip(pairs(kind), cycle(product(TROUBLES, USES)), strict=False), cycle(range(8)), strict=False
    ):
        if number == part:
            check(kind, lies, trouble, prior)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_lying_worlds_keep_every_invariant(first):
    for seed in range(first, first + CHUNK):
        report = world.play(draw(seed))
        replay = f"python -m tests.simulation --lies --seeds 1 --first {seed} --trace"
        assert report.violation is None, f"seed {seed}: {report.violation}\n{replay}\n" + "\n".join(report.tail)


def test_every_lie_is_told_by_some_seed():
    told = [draw(seed).lies for seed in range(400)]
    assert all(
        any(plan.faults.plans.keys() >= lie.faults.keys() for plan in told if lie.faults) or not lie.faults
        for lie in LIES
    )
    assert {plan.id_form for plan in told} >= {"own", "number", "slash"}
