"""`import runner` is cheap, and has the names that it promises."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import runner

ROOT = Path(runner.__file__).parents[1]
COLD = """
import sys, time
before = {*sys.modules}
began = time.perf_counter()
import runner
seconds = time.perf_counter() - began
loaded = {name.partition(".")[0] for name in {*sys.modules} - before} - {*sys.stdlib_module_names}
print(seconds, *sorted(loaded))
"""


def test_import_is_cheap_and_loads_no_library():
    seconds = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", COLD], capture_output=True, text=True, check=True, cwd=ROOT)
        took, *loaded = done.stdout.split()
        assert loaded == ["runner"]
        seconds.append(float(took))
    assert min(seconds) < 0.05


def test_every_public_name_loads():
    for name in runner.__all__:
        assert getattr(runner, name) is not None
    assert {*runner.__all__} <= {*dir(runner)}
    assert issubclass(runner.ManifestError, runner.RunnerError)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'walk'"):
        runner.walk  # noqa: B018
    with pytest.raises(ImportError):
        from runner import walk  # noqa: F401, PLC0415


@pytest.mark.slow
def test_wheel_has_the_marker_for_type_checkers(tmp_path):
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(words, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert "runner/py.typed" in zipfile.ZipFile(wheel).namelist()
