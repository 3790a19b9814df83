"""`python -m tests.fuzz`: fuzz with damaged bytes. Minimize, keep and print a failing case with its seed."""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz.coverage import Coverage
from tests.fuzz.mutation import mutated, shrunk
from tests.fuzz.targets import targets

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

#: seconds of CPU that one case may take; what takes longer is a finding
SLOWEST = 5.0
#: bytes by which one case may raise the most memory the process ever had; what takes more is a finding
LARGEST = 256 * 1024 * 1024
#: cases that are damaged further: those that got furthest, or any; the oldest make way
_POOL = 2_000


@dataclass(frozen=True)
class Finding:
    """The smallest failing case that was found, and its reason."""

    target: str
    case: bytes
    why: str


def failure(target: Target, case: bytes) -> str:
    """Return why the case fails, or an empty text."""
    began, held = time.process_time(), peak_memory()
    try:
        target.check(case)
    except Exception as error:  # noqa: BLE001 - any exception that escapes is a finding
        return f"{type(error).__name__}: {error}"[:300]
    took, grew = time.process_time() - began, peak_memory() - held
    if grew > LARGEST:
        return f"memory: {grew / 1e6:.0f} MB more than ever before"
    return f"took {took:.1f} s" if took > SLOWEST else ""


def peak_memory() -> int:
    """Return the peak memory of this process in bytes. Linux reports KiB (getrusage(2))."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fuzz(target: Target, seed: int, *, seconds: float = 0.0, cases: int = 0) -> tuple[int, Finding | None]:
    """Run damaged cases for a time or a number, and return how many there were and the first failure."""
    chance, pool, coverage = random.Random(f"{target.name}-{seed}"), list(target.seeds), Coverage()
    end, done = time.monotonic() + seconds, 0
    while done < cases or time.monotonic() < end:
        case = mutated(chance.choice(pool), target.seeds, chance) if done >= len(target.seeds) else target.seeds[done]
        done += 1
        why, further = coverage.during(lambda case=case: failure(target, case))
        if why.startswith("took"):  # being watched makes it slower
            why = failure(target, case)
        if why:
            kind = why.partition(":")[0]
            small = shrunk(case, lambda less, kind=kind: failure(target, less).startswith(kind))
            return done, Finding(target.name, small, failure(target, small))
        if further or not done % 50:
            pool[len(target.seeds) :] = [*pool[len(target.seeds) :], case][-_POOL:]
    return done, None


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9)
    parser.add_argument("--target", choices=sorted(targets()), action="append")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="where cases that fail are kept")
    given = parser.parse_args()
    chosen = [target for name, target in targets().items() if not given.target or name in given.target]
    print(f"seed {given.seed}")
    found = [_run_and_report(target, given.seed, given.minutes * 60 / len(chosen), given.keep) for target in chosen]
    return 1 if any(found) else 0


def _run_and_report(target: Target, seed: int, seconds: float, keep: Path) -> bool:
    done, finding = fuzz(target, seed, seconds=seconds)
    print(f"{target.name}: {done:,} cases{'' if finding is None else f', and one fails: {finding.why}'}", flush=True)
    if finding is not None:
        keep.mkdir(exist_ok=True)
        path = keep / f"{target.name}-{seed}"
        path.write_bytes(finding.case)
        print(f"  {len(finding.case)} bytes kept as {path}: {finding.case[:120]!r}")
    return finding is not None


if __name__ == "__main__":
    sys.exit(main())
