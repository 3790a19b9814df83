"""A short run of the fuzzer, always with the same seed; and that it finds what is there to be found."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import fuzz
from tests.fuzz.targets import Target, targets

CASES = {"manifest": 60, "reply": 250, "media": 1500, "journal": 40, "name": 1500}


@pytest.mark.parametrize("name", CASES)
def test_damaged_bytes_end_in_errors_of_ours(name):
    done, finding = fuzz(targets()[name], 1, cases=CASES[name])
    assert finding is None, finding
    assert done == CASES[name]


def test_every_target_has_a_short_run():
    assert CASES.keys() == targets().keys()


def test_a_case_that_fails_is_found_made_small_and_the_same_by_its_seed():
    def check(data):
        assert b"{{" not in data, "braces"

    target = Target("braces", (b"one two three four",), check)
    _, first = fuzz(target, 7, cases=5000)
    _, second = fuzz(target, 7, cases=5000)
    assert first == second
    assert first.case == b"{{"
    assert "braces" in first.why
