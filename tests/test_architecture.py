"""The layers: allowed imports, and the places where clocks, randomness and the environment enter."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

import runner

HOUSE = Path(runner.__file__).parent

#: packages that each package may import besides itself
BELOW: dict[str, set[str]] = {
    "errors": set(),
    "lean": set(),
    "lifecycle": {"errors"},
    "providers": {"lifecycle", "errors"},
    "manifest": {"lifecycle", "errors"},
    "net": {"providers", "manifest", "lifecycle", "errors", "version", "lean"},
    "store": {"providers", "manifest", "lifecycle", "errors"},
    "pipeline": {"net", "store", "providers", "manifest", "lifecycle", "errors"},
    "report": {"net", "store", "providers", "manifest", "lifecycle", "errors"},
    "settings": {"errors"},
    "log_file": set(),
    "logs": {"log_file", "lifecycle", "errors", "lean"},
    "sandbox": set(),
    "version": set(),
}
BELOW["app"] = {*BELOW, "app"} - {"sandbox"}
BELOW["cli"] = {*BELOW, "app"} - {"sandbox"}
BELOW["__main__"] = {"cli"}

#: packages or modules that may import a library; a trailing `.` means everything below
GUARDED: dict[str, tuple[str, ...]] = {
    # lanes only parses addresses with it, by the same rules by which net will send to them
    "httpx": ("runner.net.", "runner.app.lanes"),
    "aiohttp": ("runner.net.",),
    "aiosqlite": ("runner.store.",),
    "sqlite3": ("runner.store.",),
    "yaml": ("runner.manifest.reader", "runner.providers.spec"),
    "structlog": ("runner.logs",),
    "starlette": ("runner.net.web",),
    "uvicorn": ("runner.net.web",),
    "runner.sandbox": ("runner.sandbox.", "runner.cli.sandbox"),
}

#: what is not a pure function of its arguments, and the places where it comes in
IMPURE: dict[str, tuple[str, ...]] = {
    "time.time": (
        "runner.app.lanes",  # hands the wall clock to the auth schemes
        "runner.app.rebuilding",  # the name under which the old database is kept
        "runner.pipeline.clock",  # the run's clock, from where it is handed on
        "runner.cli.jobs",  # how long ago, for a user to read
        "runner.sandbox.",  # a world of its own
    ),
    "time.time_ns": ("runner.pipeline.clock",),
    # for connections from before a suspension, and below: defaults of parameters, which tests replace
    "time.clock_gettime": ("runner.pipeline.clock", "runner.net.transport"),
    "time.monotonic": ("runner.app.lanes", "runner.pipeline.clock", "runner.net.", "runner.logs"),
    "time.sleep": (),
    "datetime.now": (),
    "random": (),
    # a run's name at its monitor
    "uuid": ("runner.app.notices", "runner.sandbox."),
    # names of files that are renamed away at once
    "secrets": (
        "runner.store.account",
        "runner.store.ground",
        "runner.report.whole_file",
        "runner.cli.showing",  # the key of a live page's address
        "runner.sandbox.",
    ),
    "os.urandom": (),
    "os.environ": ("runner.cli.",),
    "os.getenv": (),
}

SHAPELESS = {"utils", "helpers", "common", "manager", "util", "helper", "misc", "base"}
PRINTERS = ("runner.cli.", "runner.report.", "runner.sandbox.__main__")


@dataclass(frozen=True)
class Module:
    name: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name.split(".")[1] if "." in self.name else "version"

    @property
    def imports(self) -> set[str]:
        """Yield the full names of all imports, at any level."""
        found = set()
        for node in ast.walk(self.tree):
            match node:
                case ast.Import(names=names):
                    found |= {alias.name for alias in names}
                case ast.ImportFrom(module=None) | ast.ImportFrom(level=1 | 2 | 3 | 4):
                    found.add("relative")
                case ast.ImportFrom(module=str(module), names=names):
                    found |= {f"{module}.{alias.name}" for alias in names}
        return found

    @property
    def uses(self) -> set[str]:
        """Return dotted names that are read anywhere, as written, and everything imported."""
        dotted = {ast.unparse(node) for node in ast.walk(self.tree) if isinstance(node, ast.Attribute)}
        return dotted | self.imports

    @property
    def calls(self) -> set[str]:
        return {ast.unparse(node.func) for node in ast.walk(self.tree) if isinstance(node, ast.Call)}


def module(name: str, text: str) -> Module:
    return Module(name, ast.parse(text))


def house() -> list[Module]:
    found = []
    for path in sorted(HOUSE.rglob("*.py")):
        parts = ["runner", *path.relative_to(HOUSE).with_suffix("").parts]
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(
            module(f"{name}.__init__" if path.name == "__init__.py" and "." in name else name, path.read_text())
        )
    return found


def among(name: str, places: tuple[str, ...]) -> bool:
    return any(name.startswith(place) if place.endswith(".") else name == place for place in places)


def is_of(name: str, owner: str) -> bool:
    return name == owner or name.startswith(f"{owner}.")


def climbing(found: Module) -> list[str]:
    """Return imports of our packages that go up or sideways."""
    wrong = ["relative"] if "relative" in found.imports else []
    for name in sorted(found.imports):
        if not is_of(name, "runner"):
            continue
        package = name.split(".")[1] if name != "runner.__version__" and "." in name else "version"
        allowed = {found.package, *BELOW.get(found.package, set())}
        if package not in allowed and not (package == "sandbox" and among(found.name, GUARDED["runner.sandbox"])):
            wrong.append(name)
    return wrong


def misplaced(found: Module) -> list[str]:
    """Return guarded libraries outside of their packages."""
    return [
        library
        for library, places in GUARDED.items()
        if not among(found.name, places) and any(is_of(name, library) for name in found.imports)
    ]


def impure(found: Module) -> list[str]:
    """Return uses of clocks, randomness and environment that are not arguments."""
    return [
        name
        for name, places in IMPURE.items()
        if not among(found.name, places)
        and any(is_of(used, name) or ("." in name and used.endswith(f".{name}")) for used in found.uses)
    ]


def printing(found: Module) -> bool:
    return "print" in found.calls and not among(found.name, PRINTERS)


def shapeless(found: Module) -> bool:
    return bool(SHAPELESS & set(found.name.split(".")))


MODULES = house()


def named(found: Module) -> str:
    return found.name


@pytest.mark.parametrize("found", MODULES, ids=named)
def test_every_module_follows_the_rules(found):
    assert climbing(found) == []
    assert misplaced(found) == []
    assert impure(found) == []
    assert not printing(found)
    assert not shapeless(found)


def test_every_package_is_known():
    assert {found.package for found in MODULES} <= set(BELOW)


def test_packages_have_an_order():
    for package, below in BELOW.items():
        for other in below - {package}:
            assert package not in BELOW[other] - {other}, (package, other)


@pytest.mark.parametrize(
    "place",
    sorted({place for places in (*GUARDED.values(), *IMPURE.values(), PRINTERS) for place in places}),
)
def test_every_exception_is_needed(place):
    """An exception without a module that needs it would allow a later violation."""
    assert any(among(found.name, (place,)) for found in MODULES)


@pytest.mark.parametrize(
    ("name", "places"),
    [(name, place) for rules in (GUARDED, IMPURE) for name, places in rules.items() for place in places],
)
def test_every_permission_is_used(name, places):
    users = [found for found in MODULES if among(found.name, (places,))]
    assert any(is_of(used, name) for found in users for used in found.uses), f"{places} uses no {name} any more"


# the rules can fail


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("runner.lifecycle.task", "from runner.providers.spec import Spec"),
        ("runner.lifecycle.task", "import runner.store.store"),
        ("runner.errors", "from runner import lifecycle"),
        ("runner.net.gateway", "from runner.store.store import Store"),
        ("runner.store.store", "from runner.net import gateway"),
        ("runner.pipeline.run", "def f():\n    from runner.report import tally"),
        ("runner.report.tally", "if TYPE_CHECKING:\n    from runner.pipeline.run import Run"),
        ("runner.providers.spec", "from runner.manifest.reader import read"),
        ("runner.manifest.parse", "from runner.providers.spec import Spec"),
        ("runner.store.rows", "from .store import Store"),
        ("runner.store.rows", "from . import store"),
        ("runner.app.runs", "from runner.cli.main import run"),
        ("runner.app.runs", "def f():\n    import runner.sandbox.server"),
        ("runner.cli.runs", "from runner.sandbox.server import Sandbox"),
        ("runner.sandbox.app", "from runner.errors import RunnerError"),
        ("runner.pipeline.run", "from runner.settings import Settings"),
        ("runner.pipeline.run", "from runner import app"),
    ],
)
def test_upward_import_is_detected(name, text):
    assert climbing(module(name, text))


@pytest.mark.parametrize(
    ("name", "text", "library"),
    [
        ("runner.pipeline.run", "import httpx", "httpx"),
        ("runner.app.runs", "from httpx import URL", "httpx"),
        ("runner.app.lanes", "from aiohttp.abc import AbstractResolver", "aiohttp"),
        ("runner.pipeline.run", "if TYPE_CHECKING:\n    import sqlite3", "sqlite3"),
        ("runner.cli.jobs", "def f():\n    import aiosqlite", "aiosqlite"),
        ("runner.manifest.parse", "import yaml", "yaml"),
        ("runner.providers.specs", "from yaml import safe_load", "yaml"),
        ("runner.pipeline.lane", "import structlog.stdlib", "structlog"),
        ("runner.app.embedded", "import runner.sandbox", "runner.sandbox"),
    ],
)
def test_library_in_wrong_package_is_detected(name, text, library):
    assert misplaced(module(name, text)) == [library]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("import time\nx = time.time()", "time.time"),
        ("import time\ndef f(clock=time.time): ...", "time.time"),
        ("from time import time", "time.time"),
        ("import random", "random"),
        ("from uuid import uuid4", "uuid"),
        ("import os\nos.environ['X']", "os.environ"),
        ("from os import environ", "os.environ"),
        ("import datetime\ndatetime.datetime.now()", "datetime.now"),
        ("import os\nos.getenv('X')", "os.getenv"),
        ("import time\ntime.sleep(1)", "time.sleep"),
        ("import secrets", "secrets"),
    ],
)
def test_hidden_dependency_is_detected(text, name):
    assert impure(module("runner.pipeline.lane", text)) == [name]


def test_printing_and_vague_names_are_detected():
    assert printing(module("runner.pipeline.run", "def f():\n    print('x')"))
    assert not printing(module("runner.cli.main", "print('x')"))
    assert shapeless(module("runner.net.utils", ""))
    assert not shapeless(module("runner.net.gateway", ""))


def test_allowed_code_passes():
    fine = "from runner.net.gateway import Gateway\nfrom runner.lifecycle.task import Task\nimport anyio"
    assert climbing(module("runner.pipeline.run", fine)) == []
    assert misplaced(module("runner.net.gateway", "import httpx, aiohttp")) == []
    assert impure(module("runner.pipeline.clock", "import time\ntime.time()")) == []
