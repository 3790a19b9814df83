"""A short run of the fuzzer with a fixed seed, and proof that it finds failures."""

from __future__ import annotations

import pytest

from runner.manifest.naming import slug
from tests.fuzz.__main__ import failure, fuzz, peak_memory
from tests.fuzz.coverage import Coverage
from tests.fuzz.targets import Target, targets

CASES = {"manifest": 60, "reply": 250, "media": 1500, "journal": 40, "name": 1500, "workbook": 150}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_damaged_bytes_raise_only_our_errors(name):
    done, finding = fuzz(targets()[name], 1, cases=CASES[name])
    assert finding is None, finding
    assert done == CASES[name]


def test_every_target_has_a_short_run():
    assert CASES.keys() == targets().keys()


def test_failing_case_is_minimized_and_reproducible():
    """A failing case is found, minimized, and the same for its seed."""

    def check(data):
        assert b"{{" not in data, "braces"

    target = Target("braces", (b"one two three four",), check)
    _, first = fuzz(target, 7, cases=5000)
    _, second = fuzz(target, 7, cases=5000)
    assert first == second
    assert first.case == b"{{"
    assert "braces" in first.why


def test_case_reaches_new_code_only_once():
    coverage = Coverage()
    furthers = [coverage.during(lambda text=text: slug(text))[1] for text in ("plain", "plain", "CON.txt", "CON.txt")]
    assert furthers == [True, False, True, False]


def test_case_with_high_memory_use_is_a_finding():
    def check(_data):
        assert bytearray(b"x") * (peak_memory() + 500_000_000)

    assert failure(Target("large", (b"",), check), b"").startswith("memory")
