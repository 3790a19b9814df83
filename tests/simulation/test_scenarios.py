"""Bad days that are promised an outcome in figures: an outage, a signal, a provider that never works again."""

from __future__ import annotations

import pytest

from runner.pipeline.outcome import Exit
from tests.simulation.faults import KINDS, Life, Plan, Span
from tests.simulation.world import play

HOURS_3 = 10_800.0


def figures(report):
    """Requests during an outage, useful ones, and all of them."""
    during = sum(count for (_, outage, _), count in report.traffic.items() if outage)
    useful = sum(count for (_, _, proper), count in report.traffic.items() if proper)
    return during, useful, sum(report.traffic.values())


def outage(kind, manner, start, *, seed=1):
    return Plan(
        seed=seed,
        kind=kind,
        prompts=60,
        pace=2.0,
        takes=(20.0, 90.0),
        paid=172_800.0,
        outages=(Span(start, start + HOURS_3, manner),),
        heals=10**9,
    )


@pytest.mark.parametrize("manner", ["refused", "silent", "5xx"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_outage_of_three_hours_costs_little(kind, manner):
    """At most 400 requests, 1.1 for each useful one beside the probes; it ends within a minute of the recovery."""
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


@pytest.mark.parametrize("manner", ["silent", "5xx"])
@pytest.mark.parametrize("kind", ["kling", "chanjing"])
def test_an_outage_in_mid_submit_stops_submits_and_buys_nothing_twice(kind, manner):
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
        pace=5.0,
        submit={"slow_answer": 0.5},
        slowest=25.0,
        lives=(Life(term=term),),
        heals=10**9,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_drains_within_35_seconds_and_leaves_no_doubt(kind):
    """Answers take up to 25 s here: all of them are waited for, and not one task is in doubt."""
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


def test_a_second_signal_cuts_the_drain_short():
    """5 s are left for answers; what has none by then is in doubt, and settled by the next run."""
    report, drained, _ = _drained(healthy("kling", (10.0, 12.0), 3))
    assert report.violation is None
    assert drained <= 8.0


def _drained(plan):
    """A run that is told to end: its report, how long it took, and whether it left anything in doubt."""
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


@pytest.mark.parametrize("where", FOREVER)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_tried_for_ever(kind, where):
    """A fault that never ends: the run ends by itself, in a bounded time and with a bounded number of requests."""
    for fault in FOREVER[where]:
        if kind != "kling" and fault in {"lost", "unknown_code", "no_id", "not_json", "throttled"}:
            continue  # there as here
        plan = Plan(seed=5, kind=kind, prompts=2, doubt=40.0, pace=5.0, throttles=60, **{where: {fault: 1.0}})
        report = play(plan)
        _, _, total = figures(report)
        assert report.violation is None, fault
        assert report.lives[0].startswith("exit"), f"{fault}: {report.lives}"
        assert total <= 3000, f"{fault}: {total} requests"
