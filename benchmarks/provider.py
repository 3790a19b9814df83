"""Run the sandbox and the file server as processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Provider:
    """A running sandbox."""

    url: str
    #: environment that a runner needs to reach it
    environ: Mapping[str, str]

    def stats(self) -> dict[str, Any]:
        """Return all counters."""
        return self._get("stats")

    def arrivals(self) -> list[float]:
        """Return the times at which submits were accepted, in seconds since the epoch."""
        return [task["at"] for task in self._get("ledger")["accepted"]]

    def requests(self) -> int:
        """Return the number of all requests."""
        return sum(self.stats()["requests"].values())

    def _get(self, what: str) -> dict[str, Any]:
        connection = HTTPConnection(self.url.removeprefix("http://"))
        try:
            connection.request("GET", f"/_sandbox/{what}")
            values: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return values


@contextmanager
def sandbox(*options: str) -> Iterator[Provider]:
    """Yield a sandbox for the duration of a block."""
    command = [sys.executable, "-m", "runner.sandbox", "--json", "--until-stdin-closes", *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        found = json.loads(process.stdout.readline() if process.stdout else b"{}")
        yield Provider(found["url"], found["env"])
    finally:
        process.communicate()


@contextmanager
def file_server(size: int, *certificate: str) -> Iterator[str]:
    """Yield the URL of a server of one file of that size, or of one task's JSON for 0."""
    command = [sys.executable, "-m", "benchmarks.cdn", str(size), *certificate]
    process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield (process.stdout.readline() if process.stdout else "").strip()
    finally:
        process.communicate()
