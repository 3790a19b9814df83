from __future__ import annotations

import pytest

from runner.lifecycle.patience import Patience, backoff, look_gap


def test_backoff_doubles_up_to_its_cap():
    assert [backoff(n) for n in (0, 1, 2, 3, 6, 7, 8)] == [0.0, 1.0, 2.0, 4.0, 32.0, 60.0, 60.0]
    assert backoff(3, base=0.5, cap=1.5) == 1.5


@pytest.mark.parametrize("failures", [100, 10**6, -5])
def test_backoff_takes_any_count(failures):
    assert 0.0 <= backoff(failures) <= 60.0


def test_reconcile_interval_is_a_quarter_of_the_quiet_time():
    assert look_gap(Patience(doubt=120)) == 30.0
    assert look_gap(Patience(doubt=0)) > 0
