"""Failures with bounds in figures: an outage, a signal, a provider that never recovers."""

from __future__ import annotations

import pytest

from runner.scheduler.outcome import Exit
from tests.simulation.faults import KINDS, Life, Plan, Span
from tests.simulation.world import play

HOURS_3 = 10_800.0


def figures(report):
    """Return the requests during an outage, the useful ones, and all."""
    during = sum(count for (_, outage, _), count in report.requests.items() if outage)
    useful = sum(count for (_, _, proper), count in report.requests.items() if proper)
    return during, useful, sum(report.requests.values())


def outage(kind, manner, start, *, seed=1):
    return Plan(
        seed=seed,
        kind=kind,
        prompts=60,
        rate=2.0,
        takes=(20.0, 90.0),
        paid=172_800.0,
        outages=(Span(start, start + HOURS_3, manner),),
        heals=10**9,
    )


@pytest.mark.slow
@pytest.mark.parametrize("manner", ["refused", "silent", "5xx"])
@pytest.mark.parametrize("kind", KINDS)
def test_outage_of_three_hours_costs_little(kind, manner):
    """At most 400 requests, 1.1 per useful one besides probes. The run ends within a minute of the recovery."""
    start = 60.0  # everything is submitted by then, and half of it is on its way
    report = play(outage(kind, manner, start))
    during, useful, total = figures(report)
    late = report.ended[0] - (start + HOURS_3)
    print(f"{kind} {manner}: {during} during the outage, {useful} useful of {total}, over {late:.0f} s after it")
    assert report.violation is None
    assert report.states == {"done": 60}
    assert during <= 400
    assert total - during <= 1.1 * useful
    assert report.lives[0] == "exit 0"
    assert late <= 60.0


@pytest.mark.slow
@pytest.mark.parametrize("manner", ["silent", "5xx"])
@pytest.mark.parametrize("kind", ["kling", "chanjing"])
def test_outage_during_submit_buys_nothing_twice(kind, manner):
    """An outage in mid-submit stops submits, and nothing is bought twice."""
    report = play(outage(kind, manner, 12.0))
    during, useful, total = figures(report)
    print(f"{kind} {manner}: {during} during the outage, {report.sents} submits, over at {report.ended[0]:.0f} s")
    assert report.violation is None
    assert report.states == {"done": 60}
    assert during <= 400
    assert total - during <= 1.1 * useful
    # what was on the wire may be lost, and no more than that
    assert report.sents <= 60 + 8 + 3


def healthy(kind, term, seed):
    return Plan(
        seed=seed,
        kind=kind,
        prompts=40,
        rate=5.0,
        submit={"slow_answer": 0.5},
        slowest=25.0,
        lives=(Life(term=term),),
        heals=10**9,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_signal_drains_in_35_s_and_leaves_nothing_in_doubt(kind):
    """Responses take up to 25 s here. The run waits for all of them, and no task is in doubt."""
    worst = 0.0
    for seed in range(6):
        plan = healthy(kind, (seed * 2.6,), seed)
        report, drained, doubts = _drained(plan)
        assert report.violation is None
        assert report.lives[0] in {f"exit {Exit.TERM:d}", "exit 0"}
        assert not doubts
        worst = max(worst, drained)
    print(f"{kind}: the longest drain took {worst:.1f} s")
    assert worst <= 35.0


@pytest.mark.slow
def test_second_signal_shortens_drain():
    """Responses have 5 s left. Tasks without one are in doubt, and the next run resolves them."""
    report, drained, _ = _drained(healthy("kling", (10.0, 12.0), 3))
    assert report.violation is None
    assert drained <= 8.0


def _drained(plan):
    """Signal a run, and return its report, its duration, and the tasks left in doubt."""
    report = play(plan, trace=True)
    lines = [line.split() for line in report.tail]
    ended = next(index for index, line in enumerate(lines) if line[1] == "ended")
    terms = [float(line[0]) for line in lines[:ended] if line[1] == "SIGTERM"]
    doubts = sum("Interrupted" in line for line in lines)
    drained = float(lines[ended][0]) - terms[0] if terms else 0.0
    return report, drained, doubts


FOREVER = {
    "submit": ("not_sent", "lost", "status_5xx", "unknown_code", "no_id", "not_json", "throttled", "window", "invalid"),
    "query": ("status_5xx", "throttled", "not_json", "unknown", "gone"),
    "fetch": ("later", "dead"),
}


@pytest.mark.slow
@pytest.mark.parametrize("where", FOREVER)
@pytest.mark.parametrize("kind", KINDS)
def test_no_retry_is_endless(kind, where):
    """With a fault that never ends, the run ends by itself in bounded time and with a bounded number of requests."""
    for fault in FOREVER[where]:
        if kind != "kling" and fault in {"lost", "unknown_code", "no_id", "not_json", "throttled"}:
            continue  # there as here
        plan = Plan(seed=5, kind=kind, prompts=2, doubt=40.0, rate=5.0, throttles=60, **{where: {fault: 1.0}})
        report = play(plan)
        _, _, total = figures(report)
        assert report.violation is None, fault
        assert report.lives[0].startswith("exit"), f"{fault}: {report.lives}"
        assert total <= 3000, f"{fault}: {total} requests"


@pytest.mark.parametrize("kind", ["kling", "chanjing"])
def test_slow_answers_do_not_keep_submits_below_the_limit(kind):
    """Eight at a time would take 3 s x 150 / 8 = 56 s; the limit alone takes 3 s, and the way up four answers."""
    report = play(_slow(kind, prompts=150))
    assert report.violation is None, report.violation
    assert report.made == 150
    assert report.last_sent < 20.0


def test_few_answers_can_be_lost_where_nothing_is_looked_up():
    """Two at a time take 3 s x 20 / 2 = 30 s."""
    report = play(_slow("kling-gateway", prompts=20))
    assert report.violation is None, report.violation
    assert report.last_sent > 26.0


def _slow(kind, prompts):
    return Plan(1, kind, prompts=prompts, rate=50.0, query_rate=50.0, submit={"slow_answer": 1.0}, slowest=3.0,
                takes=(3.0, 3.0))  # fmt: skip
