"""The judge shares no code with the judged."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import runner.sandbox

ROOM = Path(runner.sandbox.__file__).parent
ALLOWED = {*sys.stdlib_module_names, "h11", "PIL", "av"}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, level=0):
                yield module
            case ast.ImportFrom():
                yield "."


@pytest.mark.parametrize("path", sorted(ROOM.glob("*.py")), ids=lambda path: path.name)
def test_only_the_standard_library_and_three_packages_are_imported(path):
    for name in imported(path):
        assert name.startswith("runner.sandbox") or name.split(".")[0] in ALLOWED, name


def test_a_running_sandbox_has_loaded_nothing_of_ours_and_no_picture_library():
    code = (
        "import sys, runner.sandbox.server, runner.sandbox.__main__;"
        "found = [m for m in sys.modules if m.split('.')[0] in {'runner', 'PIL', 'av'}];"
        "print([m for m in found if m != 'runner' and not m.startswith('runner.sandbox')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
