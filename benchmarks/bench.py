"""Temporary directory, clean environment and the finished job that several measures share."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks.process import Usage, against_nothing, measured
from benchmarks.provider import Provider, sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: number of prompts of PartiPrompts
TASKS = 1632
QPS = 200
#: duration of a task at the provider, short, so that the time of the runner dominates
SECONDS = ("--seconds", "0.2,0.5")
_PROMPTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "PartiPrompts.tsv"
_MANIFEST = """\
version: 1
name: {name}
provider: chanjing
model: kling-v2-1
params: {{prompt: "{{{{ Prompt }}}}", aspect_ratio: "1:1", clarity: 1024}}
items: {{file: {file}}}
output: {{dir: {name}}}
limits: {{qps: {qps}, downloads: 8, max_tasks: {most}}}
"""


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished job, and the provider it ran against."""

    manifest: Path
    provider: Provider
    usage: Usage


class Bench:
    """One session of measures; all its files are removed at the end."""

    def __init__(self, directory: Path, stack: ExitStack, *, quick: bool = False) -> None:
        self.directory = directory
        #: sizes are a tenth, to check that every measure works; the figures mean little
        self.quick = quick
        self._stack = stack

    def size(self, full: int) -> int:
        """Return a size, which is a tenth in a quick session."""
        return max(1, full // 10) if self.quick else full

    @cached_property
    def prompts(self) -> Path:
        """Return the file of PartiPrompts, or a file of as many generated prompts if it is not available."""
        if _PROMPTS.exists():
            return _PROMPTS
        file = self.directory / "prompts.tsv"
        file.write_text("".join(["Prompt\n", *(f"a small house, number {n}, in fog\n" for n in range(TASKS))]))
        return file

    @cached_property
    def parti(self) -> Finished:
        """Run PartiPrompts once. Its provider keeps running, so that later measures can read its counters."""
        provider = self._stack.enter_context(sandbox("--qps", str(QPS), *SECONDS))
        manifest = self.manifest("parti", self.prompts, QPS)
        return Finished(manifest, provider, self.run("run", str(manifest), "--json", provider=provider))

    def manifest(self, name: str, file: Path, qps: int, *, most: int = 100_000) -> Path:
        """Write a manifest over a file with a column `Prompt`, and return its path."""
        path = self.directory / f"{name}.yaml"
        path.write_text(_MANIFEST.format(name=name, file=file, qps=qps, most=most))
        return path

    def numbered(self, name: str, tasks: int) -> Path:
        """Write a table of different prompts, and return its path."""
        path = self.directory / f"{name}.tsv"
        path.write_text("".join(["Prompt\n", *(f"a numbered buoy, {n}\n" for n in range(tasks))]), encoding="utf-8")
        return path

    def run(self, *words: str, provider: Provider | None = None) -> Usage:
        """Run the runner with these arguments."""
        return measured(self.command(words), self.environ(provider), self.directory)

    def python(self, *words: str) -> Usage:
        """Run this interpreter with these arguments."""
        return measured([sys.executable, *words], self.environ(None), self.directory)

    def against_nothing(self, *words: str, provider: Provider | None = None, rounds: int) -> tuple[float, float]:
        """Return the runner's median wall time in seconds, and as a multiple of `python -c pass`."""
        return against_nothing(self.command(words), self.environ(provider), self.directory, rounds=rounds)

    @staticmethod
    def command(words: Sequence[str]) -> list[str]:
        """Return the command line of the runner: the installed script if there is one, else the module."""
        script = Path(sys.executable).with_name("runner")
        return [str(script), *words] if script.exists() else [sys.executable, "-m", "runner", *words]

    def environ(self, provider: Provider | None) -> dict[str, str]:
        """Return an environment that has only the path of the user's: no key, no home, no proxy."""
        home = {"HOME": str(self.directory), "RUNNER_HOME": str(self.directory / "home")}
        root = str(Path(__file__).resolve().parents[1])
        return {"PATH": os.environ["PATH"], "PYTHONPATH": root, **home, **(provider.environ if provider else {})}


@contextmanager
def session(*, quick: bool = False) -> Iterator[Bench]:
    """Yield a bench in a temporary directory; TMPDIR decides on which disk."""
    with TemporaryDirectory(prefix="benchmarks-") as directory, ExitStack() as stack:
        yield Bench(Path(directory), stack, quick=quick)
