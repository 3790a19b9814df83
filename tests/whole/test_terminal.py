"""The output of a run on a terminal, and the terminal's state after the run is stopped."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time

import pytest

from tests.whole.conftest import TIMEOUT, images, sandbox

FAST = ("--seconds", "0,0.1")
SHOW, HIDE = b"\x1b[?25h", b"\x1b[?25l"


class Terminal:
    """The command on a pseudo-terminal."""

    def __init__(self, desk, *words: str, env: dict[str, str], columns: int = 90) -> None:
        self.seen = b""
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, columns))
        self.modes = termios.tcgetattr(slave)
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        whole = {
            **inherited,
            "RUNNER_HOME": str(desk.root / "home"),
            "TERM": "xterm-256color",
            "PYTHONUTF8": "1",
            **env,
        }
        self._slave = slave
        self.process = subprocess.Popen(
            [sys.executable, "-m", "runner", *words],
            cwd=desk.root,
            env=whole,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._slave)
        os.close(self._master)

    def read(self, holds=lambda _: False) -> bytes:
        """Return the output until the condition is true, or until the process has ended."""
        end = time.monotonic() + TIMEOUT
        while not holds(self.seen):
            assert time.monotonic() < end, self.seen[-2000:]
            ended = self.process.poll() is not None
            if select.select([self._master], [], [], 0.05)[0]:
                self.seen += os.read(self._master, 1 << 16)
            elif ended:
                break
        return self.seen

    @property
    def same_modes(self) -> bool:
        return termios.tcgetattr(self._slave) == self.modes


@pytest.mark.slow
def test_live_view_leaves_a_summary(desk):
    desk.write("job.yaml", images(8, qps=8).replace("thing 1", "违规 茶壶"))
    with sandbox(*FAST) as box, Terminal(desk, "run", "job.yaml", "--log-format", "console", env=box.env) as terminal:
        seen = terminal.read()
        assert terminal.process.wait() == 3
        assert terminal.same_modes
    text = seen.decode()
    assert re.search(r"  done {8}\x1b\[32m━", text)
    assert "moderation" in text
    assert "accepted" in text  # a log line, above the view
    last = text.rpartition(SHOW.decode())[2]
    assert "job: 7 done · 1 failed" in last
    assert "━" not in last


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 3])
def test_stopped_run_restores_terminal(desk, times):
    desk.write("job.yaml", images(40, qps=5))
    with sandbox(*FAST) as box, Terminal(desk, "run", "job.yaml", env=box.env) as terminal:
        terminal.read(lambda seen: b"running" in seen)
        for _ in range(times):
            terminal.process.send_signal(signal.SIGINT)
        seen = terminal.read()
        assert terminal.process.wait() == 130
        assert terminal.same_modes
    assert seen.rindex(SHOW) > seen.rindex(HIDE)
    assert b"Traceback" not in seen


@pytest.mark.slow
def test_kill_9_leaves_cursor_visible(desk):
    desk.write("job.yaml", images(40, qps=5))
    with sandbox(*FAST) as box, Terminal(desk, "run", "job.yaml", env=box.env) as terminal:
        terminal.read(lambda seen: b"running" in seen)
        terminal.process.kill()
        seen = terminal.read()
        assert terminal.same_modes
    assert seen.rindex(SHOW) > seen.rindex(HIDE)


@pytest.mark.slow
def test_closed_terminal_does_not_change_outcome(desk):
    """A terminal that is closed does not change how the run ends."""
    desk.write("job.yaml", images(10, qps=5))
    with sandbox(*FAST) as box:
        terminal = Terminal(desk, "run", "job.yaml", "--summary-file", "s.json", env=box.env)
        terminal.read(lambda seen: b"running" in seen)
        os.close(terminal._slave)
        os.close(terminal._master)
        assert terminal.process.wait(timeout=TIMEOUT) == 0
        assert box.stats["accepted"] == 10
    assert (desk.root / "s.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("words", [("--quiet",), ("--log-format", "json")])
def test_live_view_can_be_disabled(desk, words):
    desk.write("job.yaml", images(2))
    with sandbox(*FAST) as box, Terminal(desk, "run", "job.yaml", *words, env=box.env) as terminal:
        seen = terminal.read()
        assert terminal.process.wait() == 0
    assert b"\x1b" not in seen


def answered(desk, box, answer: bytes, *words: str) -> tuple[int, str]:
    """Answer the confirmation, and return the exit code and the output until the end."""
    with Terminal(desk, *words, env=box.env) as terminal:
        terminal.read(lambda seen: b"[y/N]" in seen)
        os.write(terminal._master, answer)
        seen = terminal.read()
        return terminal.process.wait(), seen.decode()


@pytest.mark.slow
@pytest.mark.parametrize("words", [("run", "job.yaml"), ("retry", "job.yaml", "--failed")])
def test_large_purchase_needs_confirmation(desk, words):
    """`retry --failed` sends new tasks as well, so it needs the same confirmation."""
    desk.write("job.yaml", "cost: 4\n" + images(50, qps=100))
    with sandbox(*FAST) as box:
        code, seen = answered(desk, box, b"n\n", *words)
        assert "job: buy 50 tasks for 200 beans? [y/N]" in seen
        assert "nothing was sent" in seen
        assert (code, box.stats["accepted"]) == (2, 0)
        code, seen = answered(desk, box, b"y\n", *words)
        assert (code, box.stats["accepted"]) == (0, 50)


@pytest.mark.slow
def test_failed_tasks_count_when_bought_again(desk):
    def job(count: int) -> str:
        text = images(count, provider="kling", model="image/kling-v2-1", qps=100)
        return text.replace("{subject: thing 0}", "{subject: FAIL-TEST}")

    desk.write("job.yaml", job(1))
    with sandbox(*FAST) as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"failed": 1}
        desk.write("job.yaml", job(50))
        code, seen = answered(desk, box, b"\n", "retry", "job.yaml", "--failed")
        assert (code, "buy 50 tasks at a price nobody knows?" in seen) == (2, True)
        assert desk.job()["submitted"] == 49  # no confirmation here, and the failed one is not among them


@pytest.mark.slow
@pytest.mark.parametrize("words", [("run", "job.yaml", "--yes"), ("run", "few.yaml"), ("reconcile", "job.yaml")])
def test_small_or_confirmed_purchase_needs_no_confirmation(desk, words):
    desk.write("job.yaml", images(50, qps=100))
    desk.write("few.yaml", images(5, qps=100))
    with sandbox(*FAST) as box, Terminal(desk, *words, env=box.env) as terminal:
        assert b"[y/N]" not in terminal.read()
        assert terminal.process.wait() == 0
