"""The protocol as a model: every correct variant holds, and every mutant is detected."""

from __future__ import annotations

import pytest

from tests.model.submit_model import checked, rows, verdict


@pytest.mark.slow
@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
def test_protocol_satisfies_invariants(row):
    """A variant never pays twice, loses nothing and can always finish. A mutant has exactly its known flaws."""
    report = checked(row)
    assert verdict(row, report) == "", report.traces


def test_all_variants_and_mutants_are_checked():
    names = [row.name for row in rows()]
    assert [name for name in names if name.startswith("M")] == [f"M{number}" for number in range(1, 14)]
    assert {"P0", "P1/P2", "P3", "T"} <= set(names)
