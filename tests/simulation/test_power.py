"""Power of the simulation: every mutant is detected within forty seeds."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.world import play

SEEDS = 40


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_mutant_is_detected(mutant):
    for seed in range(SEEDS):
        plan = MUTANTS[mutant].plan(seed)
        with mutant():
            report = play(plan)
        if report.violation:
            assert play(plan).violation is None, f"seed {seed} fails without the mutant too"
            return
    pytest.fail(f"survived {SEEDS} seeds")
