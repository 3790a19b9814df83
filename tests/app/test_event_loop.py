"""What arrives while the process is stopped is read before time limits that passed meanwhile count."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHILD = """
import asyncio, os, sys
import anyio
from runner.app.event_loop import LOOP_OPTIONS

async def main():
    loop, order = asyncio.get_running_loop(), []
    loop.add_reader(0, lambda: (order.append("arrival"), loop.remove_reader(0)))
    loop.call_later(0.5, order.append, "limit")
    print("begun", flush=True)
    while len(order) < 2:
        await asyncio.sleep(0.6)
    print(*order, flush=True)

anyio.run(main, backend_options=LOOP_OPTIONS)
"""


def waits_until(process, state):
    """Wait until the system shows a process as sleeping (S) or stopped (T)."""
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != state:
        os.sched_yield()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the state of a process is read from /proc")
def test_arrival_counts_before_a_limit_of_a_stopped_time():
    with subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"begun\n"
        waits_until(process, "S")  # in the loop's wait, which the signal interrupts
        process.send_signal(signal.SIGSTOP)
        waits_until(process, "T")
        process.stdin.write(b"id")
        process.stdin.flush()
        time.sleep(1.0)  # the fault itself: the process stands still for longer than its limit
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == b"arrival limit\n"
