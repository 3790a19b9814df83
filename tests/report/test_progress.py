import io

import pytest

from runner.lifecycle.events import Accepted
from runner.lifecycle.task import State, Task
from runner.report.progress import EVERY, Facts, Plain, brief, cost, sentence, shown
from runner.report.tally import Tally

FACTS = Facts("job", units={"chanjing": "beans"}, max_cost=500.0)


def task(state: State) -> Task:
    return Task(1, "k" * 32, "chanjing", "image", "m", state, 0.0)


def test_a_line_comes_now_and_then_and_on_each_change_of_kind():
    tally, stream = Tally(), io.StringIO()
    tally.start({"queued": 3})
    plain = Plain(Facts("job"), tally, stream)
    for now in (0.0, 1.0, 2.0):
        plain.update(now)
    assert stream.getvalue().count("\n") == 1
    tally.hear(task(State.SUBMITTING), Accepted("r"), task(State.RUNNING), 3.0)
    tally.states["queued"] -= 1
    tally.states["submitting"] += 1
    plain.update(3.0)
    assert stream.getvalue().count("\n") == 2
    plain.update(4.0)
    plain.update(3.0 + EVERY)
    assert stream.getvalue().count("\n") == 3


def test_what_every_task_passes_through_in_a_moment_is_no_news():
    tally, stream = Tally(), io.StringIO()
    tally.start({"running": 1})
    plain = Plain(Facts("job"), tally, stream)
    plain.update(0.0)
    for fleeting in ("submitting", "ready"):
        tally.states[fleeting] = 1
        plain.update(1.0)
    assert stream.getvalue().count("\n") == 1
    tally.stopping = True
    plain.update(2.0)
    assert stream.getvalue().splitlines()[1].endswith("· stopping")


def test_a_stream_that_is_gone_silences_the_progress_and_nothing_else():
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    plain = Plain(Facts("job"), Tally(), Gone())
    plain.update(0.0)
    plain.update(100.0)


def test_the_sentence_holds_counts_rate_cost_and_the_last_fault():
    tally = Tally()
    tally.start({"done": 2, "queued": 3, "running": 1, "failed": 1, "in_doubt": 1}, cost_before=8.0)
    tally.last_fault = "moderation \x1b[2J refused"
    line = sentence(FACTS, tally, 0.0)
    assert line.startswith(
        "job: 2/8 done · 3 to submit · 1 running · 1 in doubt · 1 failed · eta unknown · cost 8 of 500 beans"
    )
    assert "\x1b" not in line
    assert brief(FACTS, tally, 0.0) == "job 2/8 · 1 in doubt · 1 failed · eta unknown · cost 8 of 500 beans"


@pytest.mark.parametrize(
    ("units", "max_cost", "unpriced", "spent", "told"),
    [
        ({"a": "beans"}, None, False, 0.0, ""),
        ({"a": "beans"}, 10.0, False, 0.0, "cost 0 of 10 beans"),
        ({"a": "beans"}, None, True, 4.0, "cost at least 4 beans"),
        ({"a": "beans", "b": "beans"}, None, False, 4.0, "cost 4 beans"),
        ({"a": "beans", "b": "units"}, None, False, 4.0, "cost 4 beans + 2.5 units"),
    ],
)
def test_costs_are_told_in_their_own_units(units, max_cost, unpriced, spent, told):
    tally = Tally(cost=spent, unpriced=unpriced)
    tally.start({}, shares={name: {} for name in units})
    tally.shares["a"].cost = spent
    if "b" in units:
        tally.shares["b"].cost = 2.5
    assert cost(Facts("job", units=units, max_cost=max_cost), tally) == told


def test_quiet_shows_nothing():
    stream = io.StringIO()
    with shown(FACTS, Tally(), stream, quiet=True) as update:
        update(0.0)
    assert stream.getvalue() == ""
