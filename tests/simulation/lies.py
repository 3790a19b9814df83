"""Worlds in which a provider does other than its documents say, with one difference or several, as a seed decides."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

from runner.sandbox.faults import Faults
from runner.sandbox.options import ID_FORMS, Options
from tests.simulation import faults
from tests.simulation.faults import Crash, Life, Plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BOTH = ("kling", "chanjing")


@dataclass(frozen=True)
class Lie:
    """One difference from the documents. Times are shares of the quiet time."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    faults: Mapping[str, float] = field(default_factory=dict)
    #: options in quiet times
    times: Mapping[str, float] = field(default_factory=dict)
    kinds: tuple[str, ...] = BOTH

    def goes_with(self, other: Lie) -> bool:
        """Return True if no option of one is an option of the other."""
        return not (self.options.keys() | self.times.keys()) & (other.options.keys() | other.times.keys())


_KLING, _CHANJING = ("kling",), ("chanjing",)
LIES = (
    Lie("drops our reference", faults={"no_reference": 1.0}, kinds=_KLING),
    Lie("answers any reference", faults={"no_reference": 1.0, "any_reference": 1.0}, kinds=_KLING),
    Lie("denies references", faults={"absent_lies": 1.0}, kinds=_KLING),
    Lie("refuses double references", {"external_id_unique": True}, kinds=_KLING),
    Lie("answers with the first task", {"external_id_unique": True, "external_id_first": True}, kinds=_KLING),
    Lie("shows references late", times={"reference_lag_s": 2.0}, kinds=_KLING),
    Lie("hides the prompt", faults={"list_hides_prompt": 1.0}, kinds=_CHANJING),
    Lie("cuts the prompt", faults={"list_cuts_prompt": 1.0}, kinds=_CHANJING),
    Lie("lags two quiet times", times={"list_lag_s": 2.0}),
    Lie("lags ever more", times={"list_lag_grows_s": 0.15}),
    Lie("shows the newest five", {"list_newest": 5}),
    Lie("shows the newest one", {"list_newest": 1}),
    Lie("shows the oldest three", {"list_oldest": 3}),
    Lie("leaves out every other row", faults={"list_holes": 1.0}),
    Lie("is empty", faults={"list_blank": 1.0}),
    Lie("has short pages", {"list_page": 3}),
    Lie("repeats a short page", {"list_page": 3}, {"list_one_page": 1.0}),
    Lie("has no order", faults={"list_unordered": 1.0}),
    Lie("is oldest first", faults={"list_oldest_first": 1.0}),
    Lie("shows the neighbour's mark", faults={"echo_wrong": 1.0}),
    Lie("has no times", faults={"list_no_times": 1.0}),
    Lie("has times as text", faults={"list_text_times": 1.0}),
    Lie("is eight hours ahead", {"list_time_shift_s": 28_800.0}),
    Lie("is eight hours behind", {"list_time_shift_s": -28_800.0}),
    *(Lie(f"has ids of the form {form}", {"id_form": form}) for form in ID_FORMS[1:]),
    Lie("changes ids", faults={"id_changes": 1.0}),
    Lie("refuses after the charge", faults={"refuse_after_charge": 0.3}),
    Lie("refuses content after the charge", faults={"refuse_content_after_charge": 0.3}),
    Lie("drops ids from batches", faults={"batch_drops": 0.3}),
    Lie("is used by somebody else", faults={"foreign_task": 1.0}),
    Lie("has equal tasks of somebody else", faults={"twin_equal": 1.0}),
    Lie("has similar tasks of somebody else", faults={"twin_hidden": 1.0}),
)


#: which submits are accepted without an answer, and which are not accepted at all, by their numbers; a crash
TROUBLES: Mapping[str, Plan] = {
    "two of six": Plan(0, prompts=6, script={3: "answer_lost", 5: "lost"}),
    "the last": Plan(0, prompts=6, script={6: "answer_lost"}),
    "the last never arrives": Plan(0, prompts=6, script={6: "lost"}),
    "the first": Plan(0, prompts=6, script={1: "answer_lost", 2: "lost"}),
    "the only one": Plan(0, prompts=1, script={1: "answer_lost"}),
    "killed": Plan(0, prompts=6, lives=(Life(crash=Crash("request left", 4)),)),
}
#: faults of delivery in worlds of lies: what else may happen to a submit tells nothing about lists
_SUBMIT_FAULTS = ("not_sent", "lost", "answer_lost", "late", "slow_answer", "status_5xx", "unknown_code", "throttled")


def plan(kind: str, lies: tuple[Lie, ...], trouble: str, *, prior: bool, seed: int = 1) -> Plan:
    """Return the plan of a small job with these lies and this trouble."""
    world = replace(TROUBLES[trouble], seed=seed, kind=kind, doubt=40.0, takes=(1.0, 5.0), prior=prior)
    return replace(world, lies=options(lies, world.doubt))


def draw(seed: int, *, kind: str | None = None) -> Plan:
    """Return the plan of a seed: up to three lies, and faults, crashes and clocks as in an honest world."""
    dice = random.Random(f"lies {seed}")
    kind = kind or dice.choice(BOTH)
    chosen: list[Lie] = []
    for lie in dice.sample([each for each in LIES if kind in each.kinds], dice.choice((1, 1, 2, 2, 3))):
        if all(map(lie.goes_with, chosen)):
            chosen.append(lie)
    honest = faults.draw(seed, kind=kind, liveness=False)
    quiet = dice.choice((40.0, 120.0))
    answers = options(tuple(chosen), quiet)
    return replace(
        honest,
        lies=answers,
        doubt=quiet,
        prompts=dice.choice((2, 3) if honest.repeat > 1 else (3, 5, 8)),
        submit={name: rate for name, rate in honest.submit.items() if name in _SUBMIT_FAULTS},
        takes=dice.choice(((1.0, 5.0), (3.0, 30.0))),
        fates={},
        lag=0.0,
        unrelated=0,
        skips=False,
        ordered=True,
        trims=False,
        hides=False,
        disk_full=(),
        dedupes=answers.external_id_unique and not answers.external_id_first,
        lives=honest.lives[:2],
    )


def options(lies: tuple[Lie, ...], quiet_time: float) -> Options:
    """Return the options of a sandbox that tells these lies."""
    values: dict[str, Any] = {"external_id_unique": False}
    faults: dict[str, float] = {}
    for lie in lies:
        values |= lie.options | {name: share * quiet_time for name, share in lie.times.items()}
        faults |= lie.faults
    return Options(**values, faults=Faults(faults))


def pairs(kind: str) -> Iterator[tuple[Lie, Lie]]:
    """Return all pairs of lies that one provider can tell. Two forms of ids stand for all."""
    told = [
        lie for lie in LIES if kind in lie.kinds and lie.options.get("id_form", "own") in {"own", "number", "slash"}
    ]
    for first, second in combinations(told, 2):
        if first.goes_with(second):
            yield first, second
