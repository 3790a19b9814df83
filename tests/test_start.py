"""What a start leaves out: a search for cycles until it is over, and what libraries take along that nobody uses."""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys

import pytest

from runner.__main__ import _collect_after_the_start
from runner.lean import without


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


def test_a_library_can_be_left_out_of_an_import_and_be_imported_afterwards(monkeypatch, tmp_path):
    (tmp_path / "never_seen.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with without("never_seen"), pytest.raises(ImportError):
        importlib.import_module("never_seen")
    there = importlib.import_module("never_seen")
    with without("never_seen"):
        assert importlib.import_module("never_seen") is there


def test_a_run_starts_without_what_only_a_terminal_needs():
    code = "import sys, runner.app.runs, runner.app.jobs, runner.cli.runs; print({'rich', 'pygments'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
