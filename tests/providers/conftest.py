"""Provide the recorded responses as parametrized cases, and a factory for tasks of any provider."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import yaml

from runner.lifecycle.task import State, Task
from runner.providers.exchange import Reply
from runner.providers.spec import load

REPLIES = Path(__file__).parents[1] / "replies"
PROVIDERS = ("chanjing", "kling", "kling-gateway")


def reply(recorded):
    return Reply(recorded["status"], recorded["body"], recorded.get("headers", {}))


def cases(kind):
    """Yield `(spec, reply, expected)` for every recorded response of that kind."""
    for provider in PROVIDERS:
        recorded = yaml.safe_load((REPLIES / f"{provider}.yaml").read_text(encoding="utf-8"))
        for number, case in enumerate(recorded.get(kind, ()), start=1):
            expected = {name: value for name, value in case.items() if name not in {"reply", "why_it_stands"}}
            yield pytest.param(
                load(provider), reply(case["reply"]), expected, id=f"{provider}-{number}-{expected.get('event')}"
            )


def pytest_generate_tests(metafunc):
    for kind in ("submit", "query", "page", "reference"):
        if f"{kind}_reply" in metafunc.fixturenames:
            metafunc.parametrize(("spec", f"{kind}_reply", "expected"), list(cases(kind)))


@pytest.fixture(scope="session")
def recorded():
    """Return every recorded response as `(spec, kind, reply, expected)`."""
    return [
        (case.values[0], kind, case.values[1], case.values[2])
        for kind in ("submit", "query", "page", "reference")
        for case in cases(kind)
    ]


@pytest.fixture(scope="session")
def task():
    def make_task(provider="kling", operation="image", model="kling-v3", request=None, **fields):
        defaults = {"ref": "r0-1-g1", "remote_id": "u-1", "request": orjson.dumps(request or {"prompt": "a boat"})}
        return Task(1, "k" * 32, provider, operation, model, State.RUNNING, 0.0, **{**defaults, **fields})

    return make_task
