"""Fault injection into the command, with a sandbox whose ledger proves what was paid."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runner.store import journal
from tests.whole.conftest import TIMEOUT, Box, Desk, images, sandbox, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "FAST",
    "MEMORY",
    "ROOT",
    "Box",
    "Rig",
    "delivered",
    "ended",
    "images",
    "on_linux",
    "reaches",
    "sandbox",
    "until",
]

ROOT = Path(__file__).parents[2]
#: where files cost nothing
MEMORY = next((path for path in ("/dev/shm",) if Path(path).is_dir()), None)
#: tasks that take no time
FAST = ("--seconds", "0.1,0.3")
on_linux = pytest.mark.skipif(not Path("/proc/self/fdinfo").is_dir(), reason="there is no /proc here as Linux has it")
_INHERITED = ("PATH", "HOME", "LANG", "COVERAGE_PROCESS_CONFIG")


@dataclass
class Rig(Desk):
    """A desk whose command starts after injected Python code or from another program. It ends all processes at last."""

    living: list[subprocess.Popen] = field(default_factory=list)
    #: where the outputs are to be found, if not in `out`
    seen: Path | None = None
    #: a program that starts every other, and more for `Popen`
    inside: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    def start(self, *words: object, env: dict[str, str] | None = None) -> subprocess.Popen:
        return self.begun([sys.executable, "-m", "runner", *map(str, words)], env)

    def begun(self, command: list[str], env: dict[str, str] | None = None) -> subprocess.Popen:
        """Start any program in the desk's directory and environment."""
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        whole = {**inherited, "RUNNER_HOME": str(self.root / "home"), **self.env, **(env or {})}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **self.options}
        self.living.append(subprocess.Popen([*self.inside, *command], cwd=self.root, env=whole, **pipes))
        return self.living[-1]

    def tidy(self) -> None:
        """End the processes that a failed test has left behind."""
        for process in self.living:
            with process:
                process.kill()

    def sick(self, before: str, *words: object, env: dict[str, str] | None = None) -> subprocess.Popen:
        """Start the command after the code `before` in the same process. The tests can be imported there."""
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{before}\nfrom runner.__main__ import main\nmain()"
        return self.begun([sys.executable, "-c", code, *map(str, words)], env)

    @property
    def directory(self) -> Path:
        return (self.seen or self.root / "out") / "job"

    @property
    def state(self) -> Path:
        return self.directory / ".runner"

    @property
    def journal(self) -> list[dict]:
        return [line for line, _ in journal.read_lines(self.state / "journal.jsonl")]

    def paid_once(self, box: Box, count: int) -> None:
        """Check that every task was bought once, belongs to one row, and has its complete file."""
        ledger = [task["id"] for task in box.accepted]
        assert len(ledger) == count, f"{len(ledger)} bought, {count} ordered"
        lines = self.results(str(self.directory))
        assert sorted(line["remote_id"] for line in lines) == sorted(ledger)
        for line in lines:
            for output in line["outputs"]:
                data = (self.directory / output["file"]).read_bytes()
                assert sha256(data).hexdigest() == output["sha256"], output["file"]

    def finishes(self, box: Box, count: int, *words: str) -> dict:
        """Check that the next run finishes everything, and that nothing was bought twice."""
        summary = self.job("job.yaml", *words, env=box.env)
        assert summary["counts"] == {"done": count}, summary
        self.paid_once(box, count)
        return summary

    def consistent(self) -> None:
        """Check that the database is intact, and that journal and rows agree as far as they must."""
        with closing(sqlite3.connect(self.state / "state.db")) as connection:
            assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert self.journal


def reaches(process: subprocess.Popen, holds: Callable[[], bool]) -> None:
    """Wait for a condition that a process causes, but not longer than the process lives."""
    until(lambda: process.poll() is not None or holds())
    assert process.poll() is None, f"it ended too early: {ended(process)}"


def ended(process: subprocess.Popen, *, seconds: float = TIMEOUT) -> tuple[int, dict, str]:
    """Return exit code, the last line of stdout as JSON (empty if there is none), and stderr."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        raise
    last = ((out or "").splitlines() or [""])[-1]
    return process.returncode, json.loads(last) if last.startswith("{") else {}, err or ""


def delivered(process: subprocess.Popen, number: signal.Signals) -> float:
    """Send a signal, wait until the kernel has delivered it (a pending one absorbs a second), and return the time."""
    at = time.time()
    process.send_signal(number)
    status = Path(f"/proc/{process.pid}/status")
    bit = 1 << number - 1

    def pending() -> bool:
        try:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except (OSError, ValueError):
            return False
        return any(int(lines.get(name, "0"), 16) & bit for name in ("ShdPnd", "SigPnd"))

    until(lambda: not pending())
    return at


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.tidy()
