"""A neighbour that never rests: as long as the block lasts, one core is busy with something else."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: it ends with its standard input too, so that it outlives nobody
_BUSY = """
import sys, threading
def turn():
    while True:
        pass
threading.Thread(target=turn, daemon=True).start()
sys.stdin.read()
"""


@contextmanager
def busy() -> Iterator[None]:
    process = subprocess.Popen(["nice", "-n", "5", sys.executable, "-I", "-S", "-c", _BUSY], stdin=subprocess.PIPE)
    try:
        yield
    finally:
        process.communicate()
