"""What is paid is fetched first: slow downloads bound submits, and a file host that is away stops none for ever."""

from __future__ import annotations

import math

import pytest

from runner.scheduler import download_backlog
from tests.simulation.faults import Plan, Span
from tests.simulation.world import play

#: 4 downloads of two files of 1 s each are 2 tasks a second, two fifths of what may be submitted
SLOW = Plan(seed=1, kind="kling", prompts=240, rate=5.0, query_rate=50.0, takes=(4.0, 6.0), fetches=(1.0, 1.0))
AWAY_FROM, AWAY_FOR = 10.0, 3600.0
AWAY = Plan(
    seed=2,
    kind="kling",
    prompts=300,
    rate=1.0,
    takes=(4.0, 6.0),
    paid=172_800.0,
    files_away=(Span(AWAY_FROM, AWAY_FROM + AWAY_FOR, "away"),),
    heals=10**9,
)


@pytest.mark.slow
def test_slow_downloads_bound_what_is_paid(monkeypatch):
    """The bound is twice 2 tasks a second for the 7 s of a task, and the 4 that are being fetched: 36."""
    bounded = play(SLOW)
    monkeypatch.setattr(download_backlog, "FACTOR", math.inf)
    unbounded = play(SLOW)
    most, before = max(bounded.waiting.values()), max(unbounded.waiting.values())
    print(f"at most {most} results waited, {before} without the bound; after {bounded.ended[0]:.0f} s")
    assert (bounded.violation, unbounded.violation) == (None, None)
    assert bounded.states == unbounded.states == {"done": 240}
    assert before > 100
    assert most <= 60, "what was submitted before the first file came is under way already"
    assert max(number for second, number in bounded.waiting.items() if second > bounded.ended[0] / 2) <= 36
    assert bounded.ended[0] <= 1.02 * unbounded.ended[0]


@pytest.mark.slow
def test_file_host_that_is_away_slows_submits_down():
    """Submits go on when a file comes, which is tried for at least every quarter of an hour; nothing is given up.

    Without the wait all 300 tasks are bought in the first five minutes of an hour without files.
    """
    report = play(AWAY)
    print(f"{report.states}, the last submit after {report.last_sent:.0f} s")
    assert report.violation is None
    assert report.made == 300
    assert report.states == {"done": 300}
    assert AWAY_FROM + AWAY_FOR < report.last_sent < AWAY_FROM + AWAY_FOR + 900 + 120
