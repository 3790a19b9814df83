import os
import pty
import re
import select
import sys
import termios
from contextlib import contextmanager

import pytest
from rich.cells import cell_len

from runner.report.live import LiveView, live_display
from runner.report.progress import show_progress
from runner.report.run_info import RunInfo
from runner.report.stats import Loss, RunStats
from runner.tasks.models import State

INFO = RunInfo("海报", units={"p": "beans"}, max_cost=500.0, limits={"p": 2.0})
HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"


def run_stats(counts: dict[str, int] | None = None, *providers: str) -> RunStats:
    counts = counts or {"queued": 20, "submitting": 2, "running": 6, "ready": 1, "done": 10, "failed": 1}
    stats = RunStats()
    stats.start(counts, 0.0, by_provider=dict.fromkeys(providers or ("p",), counts), cost_before=40.0)
    stats.losses.append(Loss("0003-青瓷茶壶", State.FAILED, "moderation", "内容\x1b[2J审核"))
    return stats


def text(stats: RunStats, width: int = 80, height: int = 24, info: RunInfo = INFO, **options) -> list[str]:
    return [line.plain for line in LiveView(info, stats, **options).lines(1.0, width, height)]


def test_every_stage_has_a_line_with_its_count():
    lines = text(run_stats())
    assert lines[0] == "海报  10 of 40 done · eta unknown · cost 40 of 500 beans"
    assert [re.sub(r"[━─]+", "|", line) for line in lines[1:6]] == [
        "  to submit   |     22  0/s of 2/s · 2 on the wire",
        "  running     |      6  ",
        "  downloading |      1  ",
        "  done        |     10  ",
        "  failed      |      1  ",
    ]
    assert lines[6] == "  failed 0003-青瓷茶壶  moderation: 内容 [2J审核"
    assert len(lines) == 7


def test_bar_shows_its_share_and_small_counts():
    lines = text(run_stats({"queued": 0, "done": 500, "running": 499, "in_doubt": 1}))
    bars = {line.split()[0]: line.count("━") for line in lines[1:6]}
    assert bars == {"to": 0, "running": 11, "downloading": 0, "done": 12, "in": 1}


def test_several_providers_have_a_line_each():
    info = RunInfo("job", units={"p": "beans", "query": "units"}, limits={"p": 2.0, "query": 1.0})
    stats = run_stats({"queued": 3, "done": 1, "running": 2}, "p", "query")
    stats.by_provider["query"].cost = 2.5
    lines = text(stats, info=info)
    assert lines[5:7] == [
        "  p      1 of 6 done · 2 running · 0/s of 2/s",
        "  query  1 of 6 done · 2 running · 0/s of 1/s · cost 2.5 units",
    ]


def test_stopping_shows_awaited_answers():
    stats = run_stats()
    stats.stopping = True
    assert "2 answers awaited" in text(stats)[-1]
    stats.states["submitting"] = 0
    assert text(stats)[-1] == "  stopping: every answer is here"
    assert "of 2/s" not in "".join(text(stats))


@pytest.mark.parametrize(("width", "height"), [(59, 24), (40, 24), (80, 7), (10, 3)])
def test_a_small_window_gets_one_line(width, height):
    (line,) = text(run_stats(), width, height)
    assert line.startswith("海报 1")
    assert cell_len(line) < width


@pytest.mark.parametrize("width", [60, 72, 80, 120, 300])
def test_long_names_never_reach_the_edge(width):
    stats = run_stats()
    stats.losses.append(Loss("江南水乡的乌篷船" * 9, State.FAILED, "moderation", "很长的消息" * 50))
    assert all(cell_len(line) < width for line in text(stats, width))
    assert max(cell_len(line) for line in text(stats, 300)) <= 100


def test_ascii_terminal_gets_bars():
    assert "###---" in "".join(text(run_stats(), ascii_only=True)[1:5])


# the terminal itself


@contextmanager
def terminal():
    """Yield a stream that is a terminal, a function that reads its output, and the master descriptor."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    stream = os.fdopen(slave, "w", encoding="utf-8")

    def read_output() -> bytes:
        stream.flush()
        data = b""
        while select.select([master], [], [], 0.05)[0]:
            data += os.read(master, 1 << 20)
        return data

    try:
        yield stream, read_output, master
    finally:
        stream.close()


@pytest.fixture(autouse=True)
def _vt(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def test_log_lines_appear_above_the_display(monkeypatch):
    """The display is erased at the end."""
    with terminal() as (stream, read_output, master):
        monkeypatch.setattr(sys, "stderr", stream)
        with show_progress(INFO, run_stats(), stream, quiet=False) as update:
            update(1.0)
            first = read_output()
            print("a log line", file=sys.stderr)
            update(2.0)
            second = read_output()
        last = read_output()
        assert sys.stderr is stream
        os.close(master)
    assert "海报".encode() in first
    assert second.index(b"a log line") < second.index("海报".encode())
    assert second.index(b"\x1b[2K") < second.index(b"a log line")
    erased = last.rpartition(SHOW)[2]
    assert erased.count(b"\x1b[2K") >= 7
    assert "海报".encode() not in erased


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_cursor_and_streams_are_restored_after_an_error(error, monkeypatch):
    with terminal() as (stream, read_output, master):
        monkeypatch.setattr(sys, "stderr", stream)
        drawn = []
        with pytest.raises(error):
            _interrupted(stream, read_output, error, drawn)
        assert drawn[0].rindex(HIDE) < drawn[0].rindex(SHOW)
        assert sys.stderr is stream
        assert HIDE not in read_output()
        os.close(master)


def _interrupted(stream, read_output, error, drawn):
    with show_progress(INFO, run_stats(), stream, quiet=False) as update:
        update(1.0)
        drawn.append(read_output())
        raise error


def test_no_color_is_honoured(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    with terminal() as (stream, read_output, master):
        with show_progress(INFO, run_stats(), stream, quiet=False) as update:
            update(1.0)
            drawn = read_output()
        read_output()
        os.close(master)
    assert re.findall(rb"\x1b\[(?:3|4|9|10)[0-9;]*m", drawn) == []


def test_closed_terminal_ends_only_the_display(monkeypatch):
    with terminal() as (stream, read_output, master):
        monkeypatch.setattr(sys, "stderr", stream)
        with show_progress(INFO, run_stats(), stream, quiet=False) as update:
            update(1.0)
            read_output()
            os.close(master)
            update(2.0)
            update(3.0)
        assert sys.stderr is stream


@pytest.mark.parametrize("kind", ["dumb", "unknown"])
def test_dumb_terminal_gets_plain_lines(kind, monkeypatch):
    """A terminal that cannot move its cursor gets no escape sequences."""
    monkeypatch.setenv("TERM", kind)
    with terminal() as (stream, read_output, master):
        with live_display(INFO, run_stats(), stream) as update:
            assert update is None
        with show_progress(INFO, run_stats(), stream, quiet=False) as update:
            update(1.0)
        drawn = read_output()
        os.close(master)
    assert drawn.startswith("海报: 10/40 done".encode())
    assert b"\x1b" not in drawn
