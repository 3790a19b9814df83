"""The sandbox shares no code with the client that it tests."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import runner.sandbox

PACKAGE = Path(runner.sandbox.__file__).parent
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


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_sandbox_imports_only_stdlib_and_three_packages(path):
    for name in imported(path):
        assert name.startswith("runner.sandbox") or name.split(".")[0] in ALLOWED, name


def test_running_sandbox_loads_no_client_code_and_no_pillow():
    code = (
        "import sys, runner.sandbox.server, runner.sandbox.__main__;"
        "found = [m for m in sys.modules if m.split('.')[0] in {'runner', 'PIL', 'av'}];"
        "print([m for m in found if m != 'runner' and not m.startswith('runner.sandbox')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
