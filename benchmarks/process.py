"""Run a whole process, and measure wall time, CPU and peak memory as the kernel counts them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: seconds after which a process is stopped
_TIMEOUT = 900
_LAUNCH = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True)
class Usage:
    """Usage of one process: wall time in seconds, CPU seconds of user and system, peak memory in MB."""

    seconds: float
    cpu: float
    peak: float
    output: str


def measured(command: Sequence[str], environ: Mapping[str, str], directory: Path) -> Usage:
    """Run a command to its end; raises RuntimeError with the end of its output if it fails."""
    out, err = directory / "stdout", directory / "stderr"
    launch = [sys.executable, "-I", "-S", str(_LAUNCH), str(out), str(err), str(_TIMEOUT), *command]
    figures = subprocess.run(
        launch, env=dict(environ), stdout=subprocess.PIPE, check=True, cwd=directory
    ).stdout.split()
    code, (seconds, cpu, peak) = int(figures[0]), map(float, figures[1:])
    if code != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {code}: {err.read_text()[-2000:]}")
    return Usage(seconds, cpu, peak, out.read_text())


def against_nothing(
    command: Sequence[str], environ: Mapping[str, str], directory: Path, *, rounds: int
) -> tuple[float, float]:
    """Return the median wall time of a command, and as a multiple of `python -c pass`; the two take turns."""
    nothing = [sys.executable, "-c", "pass"]
    ours, bare = [], []
    for _ in range(rounds):
        bare.append(measured(nothing, environ, directory).seconds)
        ours.append(measured(command, environ, directory).seconds)
    return median(ours), median(ours) / median(bare)
