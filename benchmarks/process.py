"""A whole process and what it cost: wall time, CPU and peak memory as the kernel counts them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: seconds after which a process is taken for stuck
_LONGEST = 900
_LAUNCH = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process took; `seconds` by the clock, `cpu` seconds of user and system together, `peak` in MB."""

    seconds: float
    cpu: float
    peak: float
    output: str


def measured(command: Sequence[str], environ: Mapping[str, str], directory: Path) -> Usage:
    """Run the command to its end; RuntimeError with its last words where it fails."""
    out, err = directory / "stdout", directory / "stderr"
    launch = [sys.executable, "-I", "-S", str(_LAUNCH), str(out), str(err), str(_LONGEST), *command]
    told = subprocess.run(launch, env=dict(environ), stdout=subprocess.PIPE, check=True, cwd=directory).stdout.split()
    code, (seconds, cpu, peak) = int(told[0]), map(float, told[1:])
    if code != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {code}: {err.read_text()[-2000:]}")
    return Usage(seconds, cpu, peak, out.read_text())


def against_nothing(
    command: Sequence[str], environ: Mapping[str, str], directory: Path, *, rounds: int
) -> tuple[float, float]:
    """Median wall time of the command, and as a multiple of `python -c pass`; the two take turns."""
    nothing = [sys.executable, "-c", "pass"]
    ours, bare = [], []
    for _ in range(rounds):
        bare.append(measured(nothing, environ, directory).seconds)
        ours.append(measured(command, environ, directory).seconds)
    return median(ours), median(ours) / median(bare)
