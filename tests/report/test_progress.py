import io

from runner.lifecycle.events import Accepted
from runner.lifecycle.task import State, Task
from runner.report.progress import EVERY, Plain, sentence
from runner.report.tally import Tally


def task(state: State) -> Task:
    return Task(1, "k" * 32, "chanjing", "image", "m", state, 0.0)


def test_a_line_comes_now_and_then_and_on_each_change_of_kind():
    tally, stream = Tally(), io.StringIO()
    tally.start({"queued": 3})
    plain = Plain("job", tally, stream)
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


def test_a_stream_that_is_gone_silences_the_progress_and_nothing_else():
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    plain = Plain("job", Tally(), Gone())
    plain.update(0.0)
    plain.update(100.0)


def test_the_sentence_holds_counts_rate_and_the_last_fault():
    tally = Tally()
    tally.start({"done": 2, "running": 1, "failed": 1})
    tally.last_fault = "moderation \x1b[2J refused"
    line = sentence("job", tally, 0.0)
    assert line.startswith("job: 2/4 done · 1 running · 1 failed")
    assert "\x1b" not in line
