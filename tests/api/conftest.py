"""Jobs of Python values against a sandbox in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator  # noqa: TC003 - see below
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - the fixtures are read at run time

import pytest

import runner
from runner.sandbox.server import Options, Sandbox


@dataclass
class Box:
    """A sandbox in a thread of its own, and jobs that run against it."""

    sandbox: Sandbox
    root: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def accepted(self) -> list:
        return self.sandbox.ledger.accepted

    def values(self, count: int = 4, name: str = "job") -> dict:
        """Return a manifest with this number of images."""
        return {
            "name": name,
            "provider": "chanjing",
            "model": "kling-v2-1",
            "params": {"prompt": "{{ subject }}", "aspect_ratio": "1:1"},
            "items": [{"subject": f"{name} {number}"} for number in range(count)],
            "limits": {"qps": 50},
            "retry": {"doubt": "1s"},
        }

    def job(self, count: int = 4, name: str = "job", **keys) -> runner.Job:
        """Return a job with this number of images."""
        return runner.Job(self.values(count, name), out=self.root / name, env=self.env, **keys)

    def paid_once(self, count: int) -> bool:
        return len(self.accepted) == count and self.sandbox.ledger.duplicates() == 0


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    loop, sandbox = asyncio.new_event_loop(), Sandbox(Options(seconds=(0.05, 0.1)))
    began, end = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with sandbox:
            began.set()
            await end.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert began.wait(10)
    try:
        yield Box(sandbox, tmp_path, {**sandbox.env, "RUNNER_HOME": str(tmp_path / "home")})
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(10)
        loop.close()
