"""The walls between the packages: who may import whom, and where clocks, chance and the environment come in."""

from __future__ import annotations

import ast
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

import runner

SOURCE = Path(runner.__file__).parent

#: a package or top-level module, and every one that it may import (its own modules it always may)
BELOW: dict[str, set[str]] = {
    "errors": {"text"},
    "text": set(),
    "units": set(),
    "files": {"errors"},
    "_imports": set(),
    "tasks": {"errors", "text", "units"},
    "providers": {"tasks", "errors", "text", "units"},
    "manifest": {"tasks", "errors", "text", "units", "files"},
    "ratelimit": {"providers", "manifest", "tasks", "errors", "text", "units", "files"},
    "net": {"providers", "manifest", "tasks", "errors", "text", "units", "files", "version", "_imports"},
    "store": {"providers", "manifest", "tasks", "errors", "text", "units", "files"},
    "settings": {"errors", "files"},
    "logs": {"tasks", "errors", "text", "_imports", "files"},
    "sandbox": set(),
    "version": set(),
}
BELOW["net"] |= {"ratelimit"}
BELOW["scheduler"] = {"net", "ratelimit", "store", *BELOW["store"]}
BELOW["report"] = BELOW["scheduler"]
BELOW["app"] = {*BELOW, "app"} - {"sandbox"}
BELOW["api"] = {*BELOW, "app"} - {"sandbox"}
BELOW["cli"] = {*BELOW, "app", "api"} - {"sandbox"}
BELOW["__main__"] = {"cli"}
#: the names of `import runner`, which are loaded when they are used
BELOW["__init__"] = {"api"}

#: a library, and the packages or modules that may import it; a `.` at the end means everything under the name
GUARDED: dict[str, tuple[str, ...]] = {
    # provider_config only parses addresses with it, by the same rules by which net will send to them
    "httpx": ("runner.net.", "runner.app.provider_config"),
    "aiohttp": ("runner.net.",),
    "aiosqlite": ("runner.store.",),
    "sqlite3": ("runner.store.",),
    "yaml": ("runner.manifest.yaml_reader", "runner.providers.spec"),
    "structlog": ("runner.logs",),
    "starlette": ("runner.net.web",),
    "uvicorn": ("runner.net.web",),
    "runner.sandbox": ("runner.sandbox.", "runner.cli.sandbox"),
}

#: what is not a pure function of its arguments, and the modules where it comes in
IMPURE: dict[str, tuple[str, ...]] = {
    "time.time": (
        "runner.app.provider_config",  # hands the wall clock to the auth schemes
        "runner.app.resolve",  # the name under which `recover` keeps the old database
        "runner.scheduler.clock",  # the run's clock, from where it is handed on
        "runner.app.planned_links",  # a default that tests replace
        "runner.cli.status",  # how long ago, for the user to read
        "runner.sandbox.",  # has clocks of its own
    ),
    "time.time_ns": ("runner.scheduler.clock",),
    # for connections from before a suspension, and below: defaults of parameters, which tests replace
    "time.clock_gettime": ("runner.scheduler.clock", "runner.net.transport"),
    "time.monotonic": ("runner.app.provider_config", "runner.scheduler.clock", "runner.net.", "runner.logs"),
    "time.sleep": (),
    "datetime.now": (),
    "random": (),
    # a run's name at its monitor
    "uuid": ("runner.app.notify", "runner.sandbox."),
    # names of files that are renamed away at once
    "secrets": (
        "runner.store.filesystem",
        "runner.files",
        "runner.cli.gallery",  # the key of a live page's address
        "runner.sandbox.",
    ),
    "os.urandom": (),
    # the interface of the library reads it where its caller gives no other
    "os.environ": ("runner.cli.", "runner.api"),
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
        return self.name.split(".")[1] if "." in self.name else "__init__"

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


def modules() -> list[Module]:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = ["runner", *path.relative_to(SOURCE).with_suffix("").parts]
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


MODULES = modules()


def named(found: Module) -> str:
    return found.name


@pytest.mark.slow
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


def test_no_name_of_module_or_class_stands_in_two_packages():
    """A name in two packages makes a reader look in the wrong one. `__init__` and `__main__` are Python's own."""
    homes = defaultdict(set)
    for found in MODULES:
        stem = found.name.rpartition(".")[2]
        if not stem.startswith("__") and found.package != stem:
            homes[stem].add(found.package)
        for node in ast.walk(found.tree):
            if isinstance(node, ast.ClassDef):
                homes[node.name].add(found.package)
    assert {name: packages for name, packages in homes.items() if len(packages) > 1} == {}


def test_no_module_is_a_heap():
    """More than 500 lines are more than one idea."""
    lines = {found.name: len(ast.unparse(found.tree).splitlines()) for found in MODULES}
    assert {name: count for name, count in lines.items() if count > 500} == {}


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
        ("runner.tasks.models", "from runner.providers.spec import Spec"),
        ("runner.tasks.models", "import runner.store.store"),
        ("runner.errors", "from runner import tasks"),
        ("runner.net.client", "from runner.store.store import Store"),
        ("runner.store.store", "from runner.net import client"),
        ("runner.scheduler.run", "def f():\n    from runner.report import stats"),
        ("runner.report.stats", "if TYPE_CHECKING:\n    from runner.scheduler.run import Run"),
        ("runner.providers.spec", "from runner.manifest.yaml_reader import read"),
        ("runner.manifest.parser", "from runner.providers.spec import Spec"),
        ("runner.store.task_rows", "from .store import Store"),
        ("runner.store.task_rows", "from . import store"),
        ("runner.app.run_job", "from runner.cli.main import run"),
        ("runner.app.run_job", "def f():\n    import runner.sandbox.server"),
        ("runner.cli.runs", "from runner.sandbox.server import Sandbox"),
        ("runner.sandbox.application", "from runner.errors import RunnerError"),
        ("runner.scheduler.run", "from runner.settings import Settings"),
        ("runner.scheduler.run", "from runner import app"),
    ],
)
def test_upward_import_is_detected(name, text):
    assert climbing(module(name, text))


@pytest.mark.parametrize(
    ("name", "text", "library"),
    [
        ("runner.scheduler.run", "import httpx", "httpx"),
        ("runner.app.run_job", "from httpx import URL", "httpx"),
        ("runner.app.provider_config", "from aiohttp.abc import AbstractResolver", "aiohttp"),
        ("runner.scheduler.run", "if TYPE_CHECKING:\n    import sqlite3", "sqlite3"),
        ("runner.cli.jobs", "def f():\n    import aiosqlite", "aiosqlite"),
        ("runner.manifest.parser", "import yaml", "yaml"),
        ("runner.providers.specs", "from yaml import safe_load", "yaml"),
        ("runner.scheduler.session", "import structlog.stdlib", "structlog"),
        ("runner.app.embedded_sandbox", "import runner.sandbox", "runner.sandbox"),
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
    assert impure(module("runner.scheduler.session", text)) == [name]


def test_printing_and_vague_names_are_detected():
    assert printing(module("runner.scheduler.run", "def f():\n    print('x')"))
    assert not printing(module("runner.cli.main", "print('x')"))
    assert shapeless(module("runner.net.utils", ""))
    assert not shapeless(module("runner.net.client", ""))


def test_allowed_code_passes():
    fine = "from runner.net.client import ProviderClient\nfrom runner.tasks.models import Task\nimport anyio"
    assert climbing(module("runner.scheduler.run", fine)) == []
    assert misplaced(module("runner.net.client", "import httpx, aiohttp")) == []
    assert impure(module("runner.scheduler.clock", "import time\ntime.time()")) == []
