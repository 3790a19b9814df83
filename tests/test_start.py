"""What a start leaves to the collector of cycles: it looks for them as ever, once the start is over."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from runner.__main__ import _collect_after_the_start


@pytest.fixture
def usual():
    """Whatever happens, the tests that follow find the collector as it was."""
    thresholds, callbacks = gc.get_threshold(), list(gc.callbacks)
    yield thresholds
    gc.set_threshold(*thresholds)
    gc.callbacks[:] = callbacks
    gc.unfreeze()


def test_cycles_are_looked_for_as_ever_once_the_start_is_over(usual):
    _collect_after_the_start()
    assert gc.get_threshold() == (200_000, *usual[1:])
    gc.collect()
    assert gc.get_threshold() == usual
    assert gc.get_freeze_count() > 0
    assert gc.isenabled()


def test_what_a_start_makes_keeps_below_the_first_look(usual):
    """Otherwise it is looked through after all: 130,000 objects at the time of writing."""
    code = "import gc; gc.disable(); import runner.app.runs, runner.app.jobs, runner.cli.runs; print(gc.get_count()[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 170_000
