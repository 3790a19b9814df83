"""Guarantee classes: what each needs, what takes it away, and that a spec's claim alone gives none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.providers import spec as specs
from runner.providers.guarantee import advice, claimed_class, guarantee, hidden_fields
from runner.tasks.fact import Fact

NOW, DAY = 1_800_000_000.0, 86_400.0


def fact(name: str, value: str = "", *, age: float = 1.0, state="measured", **fields) -> Fact:
    """Return a fact that was last seen `age` days ago."""
    at = NOW - age * DAY
    return Fact(name, state, value=value, **{"n": 3, "first_at": at, "last_at": at, **fields})


LIST = (fact("own_rows", n=12), fact("capacity", "12"), fact("lag", "0.4"))
KLING = (*LIST, fact("reference_in_list", n=41, age=3))
FIELDS = tuple(
    fact("field", "verbatim", model="m", subject=name, n=1) for name in ("model_code", "creation_type", "ref_prompt")
)
CHANJING = (*LIST, *FIELDS, fact("times", "right"))


def of(provider: str, *facts: Fact, operation: str = "image", model: str = "m"):
    return guarantee(specs.load(provider), operation, model, facts, NOW)


def without(facts: tuple[Fact, ...], name: str) -> tuple[Fact, ...]:
    return tuple(each for each in facts if name not in {each.name, each.subject})


def against(name: str, **fields) -> Fact:
    return fact(name, state="contradicted", why="it was seen", **fields)


@pytest.mark.parametrize(("provider", "claimed"), [("kling", 2), ("chanjing", 1), ("kling-gateway", 0)])
def test_claim_alone_is_no_class(provider, claimed):
    found = of(provider)
    assert (found.level, found.claimed, claimed_class(specs.load(provider))) == (0, claimed, claimed)
    assert found.basis == ("unknown" if claimed else "claimed")
    assert found.measured_at is None


@pytest.mark.parametrize(
    ("provider", "facts", "level"),
    [
        ("kling", KLING, 2),
        ("kling", (*without(KLING, "reference_in_list"), fact("reference_by_query"), fact("unknown_reference")), 2),
        ("kling", (*KLING, fact("doubles", "accepted")), 2),
        ("kling", (*KLING, fact("doubles", "refused")), 3),
        ("kling", (fact("reference_in_list"), fact("doubles", "refused")), 3),
        ("kling", (fact("doubles", "first"),), 4),
        ("chanjing", CHANJING, 1),
        ("chanjing", (*without(CHANJING, "ref_prompt"), fact("field", "mapped", subject="ref_prompt", model="m")), 1),
        ("chanjing", (*CHANJING, fact("doubles", "refused"), fact("reference_in_list")), 1),
        ("kling-gateway", (*KLING, *CHANJING, fact("doubles", "first")), 0),
    ],
)
def test_measured_facts_make_the_class(provider, facts, level):
    found = of(provider, *facts)
    assert (found.level, found.basis) == (level, "measured" if level else "claimed")


@pytest.mark.parametrize(
    ("provider", "facts", "missing"),
    [
        *(("kling", KLING, each.name) for each in KLING),
        *(("chanjing", CHANJING, each.subject or each.name) for each in CHANJING),
    ],
)
def test_each_missing_fact_leaves_the_class_unknown(provider, facts, missing):
    found = of(provider, *without(facts, missing))
    assert (found.level, found.basis) == (0, "unknown")
    assert [name for name in found.missing if missing in name] == list(found.missing)


@pytest.mark.parametrize(
    ("provider", "facts", "bad"),
    [
        ("kling", KLING, against("reference_in_list")),
        ("kling", KLING, against("own_rows")),
        ("kling", without(KLING, "lag"), fact("lag", "901")),
        ("kling", without(KLING, "lag"), fact("lag", "nonsense")),
        ("chanjing", CHANJING, against("field", subject="ref_prompt", model="m")),
        ("chanjing", without(CHANJING, "ref_prompt"), fact("field", "changed", subject="ref_prompt", model="m")),
        ("chanjing", without(CHANJING, "times"), fact("times", "unreadable")),
    ],
)
def test_what_speaks_against_a_list_means_held(provider, facts, bad):
    """However old it is: only a probe or a person takes a contradiction back."""
    age = 400 * DAY if bad.state == "contradicted" else DAY
    found = of(provider, *facts, replace(bad, last_at=NOW - age))
    assert (found.level, found.basis) == (0, "contradicted")
    assert found.why


def test_contradiction_of_another_model_or_operation_does_not_count():
    assert of("chanjing", *CHANJING, against("field", subject="ref_prompt", model="other")).level == 1
    assert of("kling", *KLING, against("reference_in_list", operation="text2video")).level == 2


def test_field_that_is_no_proof_may_change():
    assert of("chanjing", *CHANJING, against("field", subject="style", model="m")).level == 1


def test_references_that_are_refused_twice_forgive_a_bad_list():
    facts = (fact("reference_in_list"), fact("doubles", "refused"), against("own_rows"))
    assert of("kling", *facts).level == 3
    assert of("kling", against("reference_in_list"), fact("doubles", "refused")).level == 0


@pytest.mark.parametrize(("age", "level"), [(6.9, 2), (7.1, 0)])
def test_class_ends_with_its_oldest_fact(age, level):
    assert of("kling", *without(KLING, "lag"), fact("lag", "0.4", age=age)).level == level


def test_lag_of_two_tasks_is_not_enough():
    assert of("kling", *without(KLING, "lag"), fact("lag", "0.4", n=2)).missing == ("lag",)


def test_age_and_number_of_tasks():
    found = of("kling", *KLING)
    assert (found.tasks, found.measured_at, found.model) == (41, NOW - 3 * DAY, "")
    assert of("chanjing", *CHANJING).model == "m"


def test_word_of_a_person_shows():
    assert of("kling", *without(KLING, "lag"), fact("lag", "1", state="declared")).basis == "declared"


@pytest.mark.parametrize(
    ("provider", "facts", "word"),
    [
        ("kling", (), "free of charge"),
        ("kling", KLING, "runner probe kling"),
        ("kling", (*KLING, fact("doubles", "refused")), ""),
        ("kling", (against("own_rows"),), "runner probe kling"),
        ("chanjing", CHANJING, ""),
        ("kling-gateway", (), "nothing does"),
    ],
)
def test_advice_says_what_would_raise_it(provider, facts, word):
    text = advice(of(provider, *facts), provider)
    assert word in text
    assert bool(word) == bool(text)


def test_hidden_fields_are_those_that_a_list_does_not_show():
    spec = specs.load("chanjing")
    body = {"ref_prompt": "a", "aspect_ratio": "1:1", "ref_img_url": ["https://example.com/a.png"]}
    assert hidden_fields(spec, body, {}) == ["ref_img_url"]
    assert hidden_fields(spec, body, {"aspect_ratio": False, "ref_img_url": True}) == ["aspect_ratio"]
