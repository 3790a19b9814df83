"""Three hundred seeds of the whole client against faulty providers, and reproducibility of a seed.

More of them: `python -m tests.simulation --seeds 10000 --jobs 2`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.faults import KINDS, draw
from tests.simulation.world import play

#: a chunk is what one worker plays in one go
SEEDS, CHUNK = 300, 15
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("seed", [4, 5, 13])
def test_a_few_seeds_keep_every_invariant(seed):
    """The fast sample of the three hundred seeds below."""
    report = play(draw(seed))
    assert report.violation is None, "\n".join(report.tail)
    assert report.made > 0


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_invariants_hold_after_every_event(first):
    crashes, unclear = Counter(), 0
    for seed in range(first, first + CHUNK):
        report = play(draw(seed))
        replay = f"python -m tests.simulation --seeds 1 --first {seed} --trace"
        assert report.violation is None, f"seed {seed}: {report.violation}\n{replay}\n" + "\n".join(report.tail)
        crashes += report.crashes
        unclear += report.unclear
    # a run without faults proves nothing
    assert crashes.total() >= CHUNK // 5
    assert unclear >= CHUNK // 2


def test_every_kind_and_both_modes_are_drawn():
    plans = [draw(seed) for seed in range(SEEDS)]
    kinds = Counter(plan.kind for plan in plans)
    assert all(kinds[kind] > SEEDS / 10 for kind in KINDS)
    assert 0.3 < sum(plan.heals is None for plan in plans) / SEEDS < 0.7
    assert sum(bool(plan.outages) for plan in plans) > SEEDS / 10
    assert sum(plan.repeat > 1 for plan in plans) > SEEDS / 10


def _hashes(hash_seed):
    command = [sys.executable, "-m", "tests.simulation", "--seeds", "12", "--first", "40", "--hashes"]
    environ = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True, timeout=300)
    return [line for line in done.stdout.splitlines() if len(line.split()) == 2 and len(line.split()[1]) == 64]


@pytest.mark.slow
def test_same_seed_gives_same_trace_in_every_process():
    first = _hashes("1")
    assert len(first) == 12
    assert len(set(first)) == 12
    assert _hashes("4711") == first
