"""What the measures share: a temporary directory, a clean environment, and the job that several of them look at."""

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

#: PartiPrompts has so many
TASKS = 1632
QPS = 200
#: how long a task takes at the provider: short, so that the runner is what takes time
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
    """A job that has run to its end, and the provider it ran against."""

    manifest: Path
    provider: Provider
    usage: Usage


class Bench:
    """One session; everything it makes goes with it."""

    def __init__(self, directory: Path, stack: ExitStack, *, quick: bool = False) -> None:
        self.directory = directory
        #: sizes are a tenth: to see whether everything works, since its figures say little
        self.quick = quick
        self._stack = stack

    def size(self, full: int) -> int:
        """How many of what there are so many of."""
        return max(1, full // 10) if self.quick else full

    @cached_property
    def prompts(self) -> Path:
        """PartiPrompts, or as many made-up prompts where it is not at hand."""
        if _PROMPTS.exists():
            return _PROMPTS
        file = self.directory / "prompts.tsv"
        file.write_text("".join(["Prompt\n", *(f"a small house, number {n}, in fog\n" for n in range(TASKS))]))
        return file

    @cached_property
    def parti(self) -> Finished:
        """PartiPrompts, run once; its provider stays, so that it can be asked what came later."""
        provider = self._stack.enter_context(sandbox("--qps", str(QPS), *SECONDS))
        manifest = self.manifest("parti", self.prompts, QPS)
        return Finished(manifest, provider, self.run("run", str(manifest), "--json", provider=provider))

    def manifest(self, name: str, file: Path, qps: int, *, most: int = 100_000) -> Path:
        """A manifest over a file with a column `Prompt`."""
        path = self.directory / f"{name}.yaml"
        path.write_text(_MANIFEST.format(name=name, file=file, qps=qps, most=most))
        return path

    def numbered(self, name: str, tasks: int) -> Path:
        """A table of so many prompts, no two of them alike."""
        path = self.directory / f"{name}.tsv"
        path.write_text("".join(["Prompt\n", *(f"a numbered buoy, {n}\n" for n in range(tasks))]), encoding="utf-8")
        return path

    def run(self, *words: str, provider: Provider | None = None) -> Usage:
        """The runner with these arguments."""
        return measured(self.command(words), self.environ(provider), self.directory)

    def python(self, *words: str) -> Usage:
        """This interpreter with these arguments."""
        return measured([sys.executable, *words], self.environ(None), self.directory)

    def against_nothing(self, *words: str, provider: Provider | None = None, rounds: int) -> tuple[float, float]:
        """The runner's median wall time, and as a multiple of `python -c pass`."""
        return against_nothing(self.command(words), self.environ(provider), self.directory, rounds=rounds)

    @staticmethod
    def command(words: Sequence[str]) -> list[str]:
        """The script that a user calls, where it stands beside this interpreter."""
        script = Path(sys.executable).with_name("runner")
        return [str(script), *words] if script.exists() else [sys.executable, "-m", "runner", *words]

    def environ(self, provider: Provider | None) -> dict[str, str]:
        """Nothing of the user's but the path: no key, no home, no proxy."""
        home = {"HOME": str(self.directory), "RUNNER_HOME": str(self.directory / "home")}
        root = str(Path(__file__).resolve().parents[1])
        return {"PATH": os.environ["PATH"], "PYTHONPATH": root, **home, **(provider.environ if provider else {})}


@contextmanager
def session(*, quick: bool = False) -> Iterator[Bench]:
    """A bench in a temporary directory; TMPDIR decides on which disk."""
    with TemporaryDirectory(prefix="benchmarks-") as directory, ExitStack() as stack:
        yield Bench(Path(directory), stack, quick=quick)
