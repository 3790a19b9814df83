"""Whole runs: the real command in a process of its own, against a sandbox in another."""

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
PATIENCE = 45


@dataclass
class Box:
    """A sandbox process and what it knows."""

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
    """A sandbox for the length of a block; it ends with its standard input."""
    command = [sys.executable, "-m", "runner.sandbox", "--json", "--until-stdin-closes", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        told = json.loads(process.stdout.readline())
        try:
            yield Box(told["url"], planted(told["env"]), process)
        finally:
            process.communicate(timeout=20)


@dataclass
class Desk:
    """A directory with manifests in it, an environment, and the command."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.write_text(text, encoding="utf-8")
        return path

    def start(self, *words: object, env: dict[str, str] | None = None) -> subprocess.Popen:
        """The command, running."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
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
        """The command, to its end."""
        process = self.start(*words, env=env)
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            raise
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def job(self, manifest: str = "job.yaml", *options: str, env: dict[str, str] | None = None) -> dict:
        """`run --json`, whose summary says how it ended."""
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
    """A manifest of that many images."""
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
    """Wait for a condition that another process brings about."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.02)
