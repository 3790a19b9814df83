"""End-to-end runs of the real command in one process, against a sandbox in another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - the fixture is read at run time

import pytest

from tests.canary import planted

#: no single run of a test may take longer, seconds
TIMEOUT = 45


@dataclass
class Box:
    """A sandbox process, with its ledger and options."""

    url: str
    env: dict[str, str]
    process: subprocess.Popen

    def ask(self, path: str) -> dict:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as answer:
            return json.load(answer)

    @property
    def stats(self) -> dict:
        return self.ask("/_sandbox/stats")

    @property
    def accepted(self) -> list[dict]:
        return self.ask("/_sandbox/ledger")["accepted"]

    def requests(self, word: str = "") -> int:
        return sum(count for endpoint, count in self.stats["requests"].items() if word in endpoint)

    def change(self, **options: object) -> None:
        body = json.dumps(options).encode()
        request = urllib.request.Request(f"{self.url}/_sandbox/options", data=body, method="POST")
        with urllib.request.urlopen(request, timeout=10):
            pass


@contextmanager
def sandbox(*options: str):
    """Run a sandbox for the duration of a block. It ends when its standard input closes."""
    command = [sys.executable, "-m", "runner.sandbox", "--json", "--until-stdin-closes", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        announced = json.loads(process.stdout.readline())
        try:
            yield Box(announced["url"], planted(announced["env"]), process)
        finally:
            process.communicate(timeout=20)


def buy_before(desk: Desk, box: Box, provider: str, model: str) -> int:
    """Buy with another job of the account, without faults, so that its list was measured. Return how many tasks."""
    options = box.ask("/_sandbox/options")
    box.change(faults={}, seconds=[1.0, 1.0])
    earlier = images(4, provider=provider, model=model).replace("thing", "earlier")
    desk.write("before.yaml", earlier)
    assert desk.job("before.yaml", env=box.env)["counts"] == {"done": 4}
    box.change(faults=options["faults"], seconds=options["seconds"])
    return 4


@dataclass
class Desk:
    """A directory of manifests, an environment, and the command."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.write_text(text, encoding="utf-8")
        return path

    def start(self, *words: object, env: dict[str, str] | None = None) -> subprocess.Popen:
        """Start the command."""
        names = ("PATH", "HOME", "LANG", "COVERAGE_PROCESS_CONFIG")
        inherited = {name: os.environ[name] for name in names if name in os.environ}
        whole = {**inherited, "RUNNER_HOME": str(self.root / "home"), **self.env, **(env or {})}
        return subprocess.Popen(
            [sys.executable, "-m", "runner", *map(str, words)],
            cwd=self.root,
            env=whole,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
        """Run the command to its end."""
        process = self.start(*words, env=env)
        try:
            out, err = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            raise
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def job(self, manifest: str = "job.yaml", *options: str, env: dict[str, str] | None = None) -> dict:
        """Run `run --json`, and return its summary."""
        done = self.run("run", manifest, "--json", *options, env=env)
        assert done.stdout, f"exit {done.returncode}: {done.stderr}"
        summary = json.loads(done.stdout.splitlines()[-1])
        assert summary["exit_code"] == done.returncode
        return summary

    def results(self, directory: str = "out/job") -> list[dict]:
        return [json.loads(line) for line in (self.root / directory / "results.jsonl").read_text().splitlines()]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def images(
    count: int = 6, *, provider: str = "chanjing", model: str = "kling-v2-1", more: str = "", qps: int = 50
) -> str:
    """Return a manifest with this number of images."""
    items = "\n".join(f"  - {{subject: thing {number}}}" for number in range(count))
    return f"""\
version: 1
provider: {provider}
model: {model}
params: {{prompt: "{{{{ subject }}}}", aspect_ratio: "1:1"}}
items:
{items}
limits: {{qps: {qps}}}
{more or "retry: {doubt: 1s}"}
"""


def until(holds, *, seconds: float = 30.0) -> None:
    """Wait until a condition that another process causes is true."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "the condition never became true"
        time.sleep(0.02)
