"""Check that a start runs no garbage collection and imports no unused libraries."""

from __future__ import annotations

import gc
import importlib
import os
import subprocess
import sys

import pytest

from runner.__main__ import _postpone_garbage_collection
from runner._imports import without_module


@pytest.fixture
def usual():
    """Restore the garbage collector after the test."""
    thresholds, callbacks = gc.get_threshold(), list(gc.callbacks)
    yield thresholds
    gc.set_threshold(*thresholds)
    gc.callbacks[:] = callbacks
    gc.unfreeze()


def test_garbage_collection_is_normal_after_the_start(usual):
    _postpone_garbage_collection()
    assert gc.get_threshold() == (200_000, *usual[1:])
    gc.collect()
    assert gc.get_threshold() == usual
    assert gc.get_freeze_count() > 0
    assert gc.isenabled()


@pytest.mark.slow
def test_start_stays_below_the_first_collection(usual):
    """A start made 130,000 objects when this was written; above the threshold, they are collected after all."""
    code = (
        "import gc; gc.disable(); import runner.app.run_job, runner.app.job, runner.cli.runs; print(gc.get_count()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 170_000


def test_hidden_module_can_be_imported_afterwards(monkeypatch, tmp_path):
    (tmp_path / "never_seen.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with without_module("never_seen"), pytest.raises(ImportError):
        importlib.import_module("never_seen")
    module = importlib.import_module("never_seen")
    with without_module("never_seen"):
        assert importlib.import_module("never_seen") is module


def test_run_starts_without_terminal_libraries():
    code = (
        "import sys, runner.app.run_job, runner.app.job, runner.cli.runs; print({'rich', 'pygments'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_file_names_are_utf8_whatever_the_locale(tmp_path):
    code = "import sys; from runner.__main__ import main; print(sys.getfilesystemencoding(), sys.argv); main()"
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-2] == "utf-8 ['-c', '--version']"
