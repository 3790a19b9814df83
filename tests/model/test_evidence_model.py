"""The rules of the evidence as a model: every world holds but for the documented limits, and every mutant is caught."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.model.evidence_model import NEW, TODAY, TWICE, Provider, explore, mutants, table


@pytest.mark.slow
@pytest.mark.parametrize("row", table(), ids=lambda row: row.what)
def test_evidence_holds_but_for_its_limits(row):
    """A world that does not hold has a sentence in the documentation."""
    result = explore(row.provider, NEW)
    assert set(result.traces) == row.new, result.traces
    assert result.ends
    assert bool(row.new) <= bool(row.limit)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "change", "provider", "flaws"), mutants(), ids=[each[0] for each in mutants()])
def test_every_rule_is_needed(name, change, provider, flaws):
    assert flaws <= set(explore(provider, replace(NEW, **change)).traces), name


@pytest.mark.parametrize("lie", [{"echo": False}, {"cap": 1}, {"blank": True}], ids=str)
def test_rules_that_believe_the_spec_pay_twice(lie):
    world = Provider(**lie)
    assert set(explore(world, TODAY).traces) == {TWICE}
    assert not explore(world, NEW).traces
