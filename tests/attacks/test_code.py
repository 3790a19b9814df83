"""The program's code: it executes no data, imports use no network, and the wheel is reproducible."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from runner.errors import ConfigError
from runner.providers import spec

ROOT = Path(__file__).parents[2]
HOUSE = ROOT / "runner"
#: what turns data into code, or a text into a command
FORBIDDEN = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "imp", "codeop"}
CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
    "subprocess.getoutput", "subprocess.call", "tempfile.mktemp", "ssl._create_unverified_context",
}  # fmt: skip
#: with a loader of ours that knows no tags
SAFE = {("spec.py", "yaml.load")}


def modules():
    return sorted(HOUSE.rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(HOUSE).as_posix())
def test_x41_no_module_executes_data(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                assert not {alias.name.partition(".")[0] for alias in names} & FORBIDDEN
            case ast.ImportFrom(module=str(module)):
                assert module.partition(".")[0] not in FORBIDDEN
            case ast.Call(func=func, keywords=keywords):
                called = ast.unparse(func)
                assert called not in CALLS or (path.name, called) in SAFE, f"{path}:{node.lineno}"
                on = {
                    word.arg for word in keywords if isinstance(word.value, ast.Constant) and word.value.value is True
                }
                off = {
                    word.arg for word in keywords if isinstance(word.value, ast.Constant) and word.value.value is False
                }
                assert "shell" not in on, f"{path}:{node.lineno}"
                assert not off & {"verify", "check_hostname", "ssl", "verify_ssl"}, f"{path}:{node.lineno}"


def test_x41_linter_rules_cover_package():
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert rules["select"] == ["ALL"]
    assert [rule for rule in rules["ignore"] if re.fullmatch(r"S\d*", rule)] == []
    spared = {path for path, ignored in rules["per-file-ignores"].items() if "S" in ignored}
    assert spared == {"tests/**", "benchmarks/**"}


def test_x41_spec_loader_makes_no_objects():
    with pytest.raises(ConfigError, match="could not determine a constructor"):
        spec.parse("name: !!python/object/apply:os.getcwd []", "evil.yaml")


DEAF = """
import socket, sys
def refuse(*args, **named):
    raise SystemExit(f"a socket at import: {args}")
socket.socket.connect = refuse
socket.socket.connect_ex = refuse
socket.socket.bind = refuse
socket.getaddrinfo = refuse
import pkgutil, importlib, runner
for found in pkgutil.walk_packages(runner.__path__, "runner."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
print("silent")
"""


@pytest.mark.slow
def test_x40_imports_do_not_use_network():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", DEAF], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
    )
    assert done.stdout.strip() == "silent", done.stderr


def test_x40_all_dependencies_are_pinned_by_hash():
    lines = (ROOT / ".ci/requirements.lock").read_text().replace("\\\n", " ").splitlines()
    pinned = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    assert len(pinned) > 30
    assert [line for line in pinned if "==" not in line or "--hash=sha256:" not in line] == []
    assert "--require-hashes" in (ROOT / "Makefile").read_text()


def built(place):
    """Build a wheel of this source with a given time."""
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "PYTHONHASHSEED": str(len(place.name))}
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    subprocess.run(words, cwd=ROOT, env=env, check=True, capture_output=True, timeout=60)
    (wheel,) = place.glob("*.whl")
    return wheel


@pytest.mark.slow
def test_x40_wheel_is_reproducible_and_holds_only_runner(tmp_path):
    """Two builds give the same wheel, and it holds the package and nothing else."""
    first, second = built(tmp_path / "a"), built(tmp_path / "bb")
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()
    with zipfile.ZipFile(first) as wheel:
        names = wheel.namelist()
        metadata = next(wheel.read(name).decode() for name in names if name.endswith("/METADATA"))
    kept = (".py", ".sql", ".yaml", ".json", ".typed", ".css", ".js", ".html", ".svg")
    strange = [
        name for name in names if ".dist-info/" not in name and not (name.startswith("runner/") and name.endswith(kept))
    ]
    assert strange == []
    source = {path.relative_to(ROOT).as_posix() for path in modules()}
    assert source == {name for name in names if name.endswith(".py")}
    assert {"runner/store/queries.sql", "runner/providers/specs/kling.yaml"} <= set(names)
    assert "Name: genrunner" in metadata
    assert not re.search(r"/(work|home|root|tmp)/", metadata.partition("\n\n")[0])
