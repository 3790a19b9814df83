"""What a run learns for nothing from the rows of its own tasks, and what contradicts a list."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.providers.responses import ListedTask
from runner.scheduler.learned_facts import LearnedFacts
from runner.scheduler.listing import Reading
from runner.tasks.list_record import Witness
from runner.tasks.models import Moment

NOW, QUIET = 1_800_000_000.0, 100.0


def witness(number: int, *, boot: str = "b", exact: bool = True) -> Witness:
    """Return a task that was accepted at second `10 * number` of the boot."""
    at = 10.0 * number
    return Witness(f"id{number}", f"ref{number}", "m", NOW + at - 1, NOW + at, Moment(boot, at), exact=exact)


def row(number: int, reference: str | None = "own", created: float | None = None) -> ListedTask:
    created = NOW + 10.0 * number if created is None else created
    return ListedTask(f"id{number}", f"ref{number}" if reference == "own" else reference, created, None, {})


def learn(rows, *, at: float = 50.0, known=None, learned=None, **options) -> LearnedFacts:
    learned = learned or LearnedFacts(**{"by_reference": True, **options})
    witnesses = {each.remote_id: each for each in known or map(witness, range(5))}
    learned.observe(Reading(tuple(rows), Moment("b", at), at=NOW + at), witnesses, QUIET)
    return learned


def taken(learned: LearnedFacts) -> dict:
    return {fact.name: fact for fact in learned.take()}


def test_own_rows_with_our_reference_are_counted_once():
    learned = learn([row(2), row(1), ListedTask("stranger", "x", NOW, None, {})])
    learn([row(3), row(2), row(1)], learned=learned)
    facts = taken(learned)
    assert (facts["own_rows"].n, facts["reference_in_list"].n, facts["times"].n) == (3, 3, 3)
    assert facts["order"].value == "newest first"
    assert learned.known
    assert learned.take() == ()


def test_reading_without_own_rows_teaches_nothing():
    learned = learn([ListedTask("stranger", "x", NOW, None, {})])
    assert learned.take() == ()
    assert not learned.known


def test_reference_that_may_still_come_is_no_contradiction():
    learned = learn([row(2, None), row(1, None)])
    assert "reference_in_list" not in taken(learned)
    assert not learned.untold
    assert not learned.known


@pytest.mark.parametrize(
    ("reference", "at", "known", "why"),
    [
        (None, 111.0, None, "does not show our reference on 1 task of ours (id1)"),
        (None, 50.0, [witness(1, boot="an earlier one")], "does not show our reference on 1 task of ours (id1)"),
        ("somebody's", 50.0, None, "shows another reference on 1 task of ours (id1)"),
    ],
    ids=["after the quiet time", "of an earlier boot", "another reference"],
)
def test_own_row_without_its_reference_contradicts(reference, at, known, why):
    heard = []
    learned = learn([row(1, reference)], at=at, known=known, on_contradiction=lambda: heard.append(1))
    (fact,) = learned.untold
    assert why in fact.why
    assert taken(learned)["reference_in_list"].state == "contradicted"
    learn([row(1, reference)], at=at, known=known, learned=learned)
    assert (len(heard), len(learned.untold)) == (1, 1)


def test_contradiction_of_an_earlier_run_is_not_told_again():
    (old,) = learn([row(1, "x")]).untold
    learned = LearnedFacts(by_reference=True)
    learned.restore([old])
    assert learn([row(1, "x")], learned=learned).untold == []


def test_contradiction_names_three_tasks_at_most():
    (fact,) = learn([row(each, "x") for each in range(5)]).untold
    assert fact.why == "the list shows another reference on 5 tasks of ours (id0, id1, id2)"


@pytest.mark.parametrize(
    ("order", "value"), [((3, 2, 1), "newest first"), ((1, 2, 3), "oldest first"), ((2, 3, 1), "none"), ((1,), None)]
)
def test_order_is_that_of_own_rows(order, value):
    order_fact = taken(learn(map(row, order))).get("order")
    assert (order_fact and order_fact.value) == value


@pytest.mark.parametrize(("created", "value"), [(0.0, "unreadable"), (NOW - 3600, None), (NOW + 20, "right")])
def test_times_are_compared_with_our_submits(created, value):
    times = taken(learn([row(2, created=created)])).get("times")
    assert (times and times.value) == value


def test_times_of_earlier_runs_are_not_compared():
    assert "times" not in taken(learn([row(1)], known=[witness(1, exact=False)]))


def test_only_fields_that_recognise_a_task_contradict():
    learned = LearnedFacts(proof=["prompt"])
    learned.learn_echo("m", {"style": False, "prompt": True}, NOW)
    assert not learned.untold
    learned.learn_echo("m", {"style": True, "prompt": False}, NOW)
    assert [(fact.model, fact.subject) for fact in learned.untold] == [("m", "prompt")]


def test_facts_that_could_not_be_written_are_kept():
    learned = learn([row(2), row(1)])
    learned.put_back(learned.take())
    learn([row(3)], learned=learned)
    assert taken(learned)["reference_in_list"].n == 3


def test_answers_by_reference_are_counted():
    learned = LearnedFacts(by_reference=True)
    learned.found_by_reference("image", NOW)
    for _ in range(2):
        learned.reference_unknown("image", "ref1", NOW)
    facts = taken(learned)
    assert {name: (fact.operation, fact.n) for name, fact in facts.items()} == {
        "reference_by_query": ("image", 1),
        "unknown_reference": ("image", 1),
    }


def test_id_that_a_person_gave_contradicts_nothing():
    """It may be that of a task made at the provider's console, which never had our reference."""
    learned = learn([row(1, None)], at=500.0, known=[replace(witness(1), adopted=True)])
    assert learned.take() == ()
    assert not learned.is_contradicted("reference_in_list")


def test_contradicted_list_stays_so_in_later_runs():
    (old,) = learn([row(1, "x")]).untold
    learned = LearnedFacts(by_reference=True)
    assert not learned.is_contradicted("reference_in_list")
    learned.restore([old])
    assert learned.is_contradicted("reference_in_list")
