"""`python -m tests.fuzz`: damaged bytes for a while; a case that fails is made small, kept and told with its seed."""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz.mutation import mutated, shrunk
from tests.fuzz.targets import targets

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

#: seconds that one case may take; what takes longer is a finding
SLOWEST = 5.0
#: good cases that are damaged further
_POOL = 200


@dataclass(frozen=True)
class Finding:
    """A case that fails: the smallest that was found, and why."""

    target: str
    case: bytes
    why: str


def failure(target: Target, case: bytes) -> str:
    """Why the case fails; empty where all is well."""
    began = time.process_time()
    try:
        target.check(case)
    except Exception as error:  # noqa: BLE001 - whatever escapes is what is looked for
        return f"{type(error).__name__}: {error}"[:300]
    took = time.process_time() - began
    return f"took {took:.1f} s" if took > SLOWEST else ""


def fuzz(target: Target, seed: int, *, seconds: float = 0.0, cases: int = 0) -> tuple[int, Finding | None]:
    """Damaged cases for so long, or so many; how many there were, and the first that fails."""
    chance, pool = random.Random(f"{target.name}-{seed}"), list(target.seeds)
    end, done = time.monotonic() + seconds, 0
    while done < cases or time.monotonic() < end:
        case = mutated(chance.choice(pool), target.seeds, chance) if done >= len(target.seeds) else target.seeds[done]
        done += 1
        why = failure(target, case)
        if why:
            kind = why.partition(":")[0]
            small = shrunk(case, lambda less, kind=kind: failure(target, less).startswith(kind))
            return done, Finding(target.name, small, failure(target, small))
        if len(pool) < _POOL and not done % 50:
            pool.append(case)
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
    found = [_told(target, given.seed, given.minutes * 60 / len(chosen), given.keep) for target in chosen]
    return 1 if any(found) else 0


def _told(target: Target, seed: int, seconds: float, keep: Path) -> bool:
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
