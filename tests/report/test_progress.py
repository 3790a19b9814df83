import io

import pytest

from runner.report.progress import PLAIN_INTERVAL, PlainProgress, show_checking, show_progress
from runner.report.run_info import RunInfo, cost_text, short_status_line, status_line
from runner.report.stats import RunStats
from runner.tasks.events import Accepted
from runner.tasks.models import State, Task

INFO = RunInfo("job", units={"chanjing": "beans"}, max_cost=500.0)


def task(state: State) -> Task:
    return Task(1, "k" * 32, "chanjing", "image", "m", state, 0.0)


def test_plain_line_on_interval_and_new_state():
    """A plain line appears every 30 seconds, and at once when a state is entered for the first time."""
    stats, stream = RunStats(), io.StringIO()
    stats.start({"queued": 3})
    plain = PlainProgress(RunInfo("job"), stats, stream)
    for now in (0.0, 1.0, 2.0):
        plain.update(now)
    assert stream.getvalue().count("\n") == 1
    stats.on_event(task(State.SUBMITTING), Accepted("r"), task(State.RUNNING), 3.0)
    stats.states["queued"] -= 1
    stats.states["submitting"] += 1
    plain.update(3.0)
    assert stream.getvalue().count("\n") == 2
    plain.update(4.0)
    plain.update(3.0 + PLAIN_INTERVAL)
    assert stream.getvalue().count("\n") == 3


def test_transient_states_print_no_line():
    """Every task passes through `submitting` and `ready`, so they are no news."""
    stats, stream = RunStats(), io.StringIO()
    stats.start({"running": 1})
    plain = PlainProgress(RunInfo("job"), stats, stream)
    plain.update(0.0)
    for state in ("submitting", "ready"):
        stats.states[state] = 1
        plain.update(1.0)
    assert stream.getvalue().count("\n") == 1
    stats.stopping = True
    plain.update(2.0)
    assert stream.getvalue().splitlines()[1].endswith("· stopping")


def test_closed_stream_silences_progress_only():
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    plain = PlainProgress(RunInfo("job"), RunStats(), Closed())
    plain.update(0.0)
    plain.update(100.0)


def test_status_line_has_counts_cost_and_last_error():
    stats = RunStats()
    stats.start({"done": 2, "queued": 3, "running": 1, "failed": 1, "in_doubt": 1}, cost_before=8.0)
    stats.last_error = "moderation \x1b[2J refused"
    line = status_line(INFO, stats, 0.0)
    assert line.startswith(
        "job: 2/8 done · 3 to submit · 1 running · 1 in doubt · 1 failed · eta unknown · cost 8 of 500 beans"
    )
    assert "\x1b" not in line
    assert short_status_line(INFO, stats, 0.0) == "job 2/8 · 1 in doubt · 1 failed · eta unknown · cost 8 of 500 beans"


@pytest.mark.parametrize(
    ("units", "max_cost", "unpriced", "spent", "text"),
    [
        ({"a": "beans"}, None, False, 0.0, ""),
        ({"a": "beans"}, 10.0, False, 0.0, "cost 0 of 10 beans"),
        ({"a": "beans"}, None, True, 4.0, "cost at least 4 beans"),
        ({"a": "beans", "b": "beans"}, None, False, 4.0, "cost 4 beans"),
        ({"a": "beans", "b": "units"}, None, False, 4.0, "cost 4 beans + 2.5 units"),
    ],
)
def test_costs_are_shown_in_their_own_units(units, max_cost, unpriced, spent, text):
    stats = RunStats(cost=spent, unpriced=unpriced)
    stats.start({}, by_provider={name: {} for name in units})
    stats.by_provider["a"].cost = spent
    if "b" in units:
        stats.by_provider["b"].cost = 2.5
    assert cost_text(RunInfo("job", units=units, max_cost=max_cost), stats) == text


def test_quiet_shows_nothing():
    stream = io.StringIO()
    with show_progress(INFO, RunStats(), stream, quiet=True) as update:
        update(0.0)
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("terminal", "written"),
    [
        (True, "\r\x1b[Kjob.yaml: 2,000 tasks checked\r\x1b[Kjob.yaml: 4,000 tasks checked\r\x1b[K"),
        (False, "job.yaml: 4,000 tasks checked\n"),
    ],
)
def test_checking_is_shown_from_the_first_second(monkeypatch, terminal, written):
    stream, moments = io.StringIO(), iter([0.0, 0.4, 0.6, 0.8, 31.0])
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    with show_checking("job.yaml", stream, lambda: next(moments)) as show:
        for count in (1000, 2000, 3000, 4000):
            show(count)
    assert stream.getvalue() == written


def test_quiet_checking_shows_nothing():
    with show_checking("job.yaml", io.StringIO(), lambda: 0.0, quiet=True) as show:
        assert show is None
    with show_checking("job.yaml", None, lambda: 0.0) as show:
        assert show is None
