"""Noisy neighbour: a process that keeps one core busy."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: the process ends when its standard input closes, so that it cannot outlive its parent
_BUSY = """
import sys, threading
def spin():
    while True:
        pass
threading.Thread(target=spin, daemon=True).start()
sys.stdin.read()
"""


@contextmanager
def busy() -> Iterator[None]:
    """Keep one core busy for the duration of a block."""
    process = subprocess.Popen(["nice", "-n", "5", sys.executable, "-I", "-S", "-c", _BUSY], stdin=subprocess.PIPE)
    try:
        yield
    finally:
        process.communicate()
