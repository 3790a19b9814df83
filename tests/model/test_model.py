"""The protocol itself, before any code: every variant that must hold holds, and every mutant is found out."""

from __future__ import annotations

import pytest

from tests.model.submit_model import checked, rows, verdict


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
def test_the_protocol_is_as_it_must_be(row):
    """A variant never pays twice, never loses, and can always finish; of a mutant exactly the known flaws are found."""
    report = checked(row)
    assert verdict(row, report) == "", report.traces


def test_all_variants_and_mutants_are_there():
    names = [row.name for row in rows()]
    assert [name for name in names if name.startswith("M")] == [f"M{number}" for number in range(1, 14)]
    assert {"P0", "P1/P2", "P3", "T"} <= set(names)
