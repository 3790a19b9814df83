import pytest

from runner.lifecycle.events import Claimed, Refused, Saved
from runner.lifecycle.task import Fault, Moment, Output, State, Task
from runner.report.tally import Tally


def task(state: State, provider: str = "p", spent: float = 0.0, cost: float | None = 1.0, **more) -> Task:
    return Task(1, "k" * 32, provider, "image", "m", state, 0.0, spent=spent, cost=cost, **more)


def saved(tally: Tally, now: float) -> None:
    tally.hear(task(State.READY), Saved((Output(1, "u", "f", 5),)), task(State.DONE), now)


def begun(counts: dict[str, int], now: float = 0.0) -> Tally:
    tally = Tally()
    tally.start(counts, now, shares={"p": counts})
    return tally


def test_a_pace_counts_the_time_before_the_first_completion():
    """Twenty tasks that come back together after five minutes are four a minute, not a thousand a second."""
    tally = begun({"ready": 100})
    for _ in range(20):
        saved(tally, 300.0)
    assert tally.rate(300.0) == pytest.approx(20 / 300)
    assert tally.eta(300.0) == pytest.approx(80 / (20 / 300))


@pytest.mark.parametrize(("completed", "known"), [(0, False), (1, False), (2, False), (3, True)])
def test_with_few_completions_nobody_can_say_how_long_it_takes(completed, known):
    tally = begun({"ready": 10})
    for number in range(completed):
        saved(tally, 1.0 + number)
    assert (tally.eta(5.0) is not None) is known


def test_a_pace_that_has_stopped_promises_nothing():
    tally = begun({"ready": 100})
    for number in range(10):
        saved(tally, 1.0 + number)
    assert tally.eta(70.0) is not None
    assert tally.eta(71.0) is None
    saved(tally, 80.0)
    assert tally.eta(81.0) is not None


def test_pauses_as_long_as_those_before_are_no_reason_for_doubt():
    tally = begun({"ready": 500})
    for minute in (5, 10, 15):
        for _ in range(10):
            saved(tally, 60.0 * minute)
    assert tally.eta(60 * 24.0) is not None
    assert tally.eta(60 * 26.0) is None


def test_only_the_latest_completions_count():
    tally = begun({"ready": 1000})
    for second in range(100):
        saved(tally, float(10 * second))
    for tenth in range(100):
        saved(tally, 1000 + tenth / 10)
    assert tally.rate(1010.0) == pytest.approx(10, rel=0.05)


def test_submits_are_paced_from_the_first_one():
    tally = begun({"queued": 10})
    for second in range(5):
        after = task(State.SUBMITTING, spent=1.0)
        tally.hear(task(State.QUEUED), Claimed(Moment("b", 0.0), 0.0), after, 100.0 + second / 2)
    assert tally.shares["p"].submits.rate(102.0) == pytest.approx(2)
    assert tally.cost == tally.shares["p"].cost == 5


def test_every_provider_has_its_share():
    tally = Tally()
    tally.start({"queued": 3}, 0.0, shares={"p": {"queued": 2}, "q": {"queued": 1}})
    tally.hear(task(State.QUEUED, "q"), Claimed(Moment("b", 0.0), 0.0), task(State.SUBMITTING, "q", 3.0), 1.0)
    assert +tally.shares["p"].states == {"queued": 2}
    assert +tally.shares["q"].states == {"submitting": 1}
    assert (tally.shares["p"].cost, tally.shares["q"].cost) == (0, 3)


def test_what_has_no_price_is_remembered():
    tally = begun({"queued": 1})
    tally.hear(task(State.QUEUED), Claimed(Moment("b", 0.0), 0.0), task(State.SUBMITTING, cost=None), 1.0)
    assert tally.unpriced


def test_the_latest_losses_are_kept_with_their_reasons_and_no_more():
    tally = begun({"submitting": 9})
    for number in range(9):
        fault = Fault("moderation", None, f"number {number}")
        after = task(State.FAILED, fault=fault, name=f"{number:04}-猫")
        tally.hear(task(State.SUBMITTING), Refused(fault), after, 1.0)
    assert [(loss.task, loss.message) for loss in tally.losses] == [
        ("0006-猫", "number 6"),
        ("0007-猫", "number 7"),
        ("0008-猫", "number 8"),
    ]
    assert tally.last_fault == "moderation number 8"
    assert (tally.total, tally.open) == (9, 0)
