import pytest

from runner.report.stats import RunStats
from runner.tasks.events import Claimed, Rejected, Saved
from runner.tasks.models import Moment, Output, State, Task, TaskError


def task(state: State, provider: str = "p", spent: float = 0.0, cost: float | None = 1.0, **more) -> Task:
    return Task(1, "k" * 32, provider, "image", "m", state, 0.0, spent=spent, cost=cost, **more)


def saved(stats: RunStats, now: float) -> None:
    stats.on_event(task(State.READY), Saved((Output(1, "u", "f", 5),)), task(State.DONE), now)


def started(counts: dict[str, int], now: float = 0.0) -> RunStats:
    stats = RunStats()
    stats.start(counts, now, by_provider={"p": counts})
    return stats


def test_rate_counts_time_before_the_first_completion():
    """Twenty tasks that finish together after five minutes are four per minute, not a thousand per second."""
    stats = started({"ready": 100})
    for _ in range(20):
        saved(stats, 300.0)
    assert stats.rate(300.0) == pytest.approx(20 / 300)
    assert stats.eta(300.0) == pytest.approx(80 / (20 / 300))


@pytest.mark.parametrize(("completed", "known"), [(0, False), (1, False), (2, False), (3, True)])
def test_eta_needs_three_completions(completed, known):
    stats = started({"ready": 10})
    for number in range(completed):
        saved(stats, 1.0 + number)
    assert (stats.eta(5.0) is not None) is known


def test_stale_rate_gives_no_eta():
    stats = started({"ready": 100})
    for number in range(10):
        saved(stats, 1.0 + number)
    assert stats.eta(70.0) is not None
    assert stats.eta(71.0) is None
    saved(stats, 80.0)
    assert stats.eta(81.0) is not None


def test_pauses_as_long_as_earlier_ones_keep_the_eta():
    """Tasks may finish in batches minutes apart."""
    stats = started({"ready": 500})
    for minute in (5, 10, 15):
        for _ in range(10):
            saved(stats, 60.0 * minute)
    assert stats.eta(60 * 24.0) is not None
    assert stats.eta(60 * 26.0) is None


def test_only_the_latest_completions_count():
    stats = started({"ready": 1000})
    for second in range(100):
        saved(stats, float(10 * second))
    for tenth in range(100):
        saved(stats, 1000 + tenth / 10)
    assert stats.rate(1010.0) == pytest.approx(10, rel=0.05)


def test_submit_rate_starts_at_the_first_submit():
    stats = started({"queued": 10})
    for second in range(5):
        after = task(State.SUBMITTING, spent=1.0)
        stats.on_event(task(State.QUEUED), Claimed(Moment("b", 0.0), 0.0), after, 100.0 + second / 2)
    assert stats.by_provider["p"].submits.rate(102.0) == pytest.approx(2)
    assert stats.cost == stats.by_provider["p"].cost == 5


def test_counters_by_provider():
    stats = RunStats()
    stats.start({"queued": 3}, 0.0, by_provider={"p": {"queued": 2}, "q": {"queued": 1}})
    stats.on_event(task(State.QUEUED, "q"), Claimed(Moment("b", 0.0), 0.0), task(State.SUBMITTING, "q", 3.0), 1.0)
    assert +stats.by_provider["p"].states == {"queued": 2}
    assert +stats.by_provider["q"].states == {"submitting": 1}
    assert (stats.by_provider["p"].cost, stats.by_provider["q"].cost) == (0, 3)


def test_task_without_a_price_is_noted():
    stats = started({"queued": 1})
    stats.on_event(task(State.QUEUED), Claimed(Moment("b", 0.0), 0.0), task(State.SUBMITTING, cost=None), 1.0)
    assert stats.unpriced


def test_only_the_latest_losses_are_kept():
    """Losses keep their reasons and messages."""
    stats = started({"submitting": 9})
    for number in range(9):
        error = TaskError("moderation", None, f"number {number}")
        after = task(State.FAILED, error=error, name=f"{number:04}-猫")
        stats.on_event(task(State.SUBMITTING), Rejected(error), after, 1.0)
    assert [(loss.task, loss.message) for loss in stats.losses] == [
        ("0006-猫", "number 6"),
        ("0007-猫", "number 7"),
        ("0008-猫", "number 8"),
    ]
    assert stats.last_error == "moderation number 8"
    assert (stats.total, stats.open) == (9, 0)
