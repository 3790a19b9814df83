"""Commands of the tools that `peers` compares: the first start, the start after a crash, and their environment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import borrowed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.provider import Provider

#: requests a second that the account allows, for submits and for queries each, and concurrent tasks
RATE, CONCURRENCY = 50, 200
#: seconds after which a command is killed
TIMEOUT = 120.0
_PEERS = Path(__file__).with_name("peer")


@dataclass(frozen=True, slots=True)
class Contender:
    """A tool by name; `again` is the command after a crash, if it is another one."""

    name: str
    begin: Sequence[str]
    again: Sequence[str] = ()
    environ: Mapping[str, str] = field(default_factory=dict)

    def run(self, folder: Path, environ: Mapping[str, str], until: Callable[[], bool] | None = None) -> float:
        """Run to the end and return the seconds it took; with `until`, kill it once that is true and start it again."""
        began = time.monotonic()
        environ = {**environ, **self.environ}
        if until is not None:
            _run(self.begin, folder, environ, until)
        _run(self.again if until and self.again else self.begin, folder, environ, lambda: False)
        return time.monotonic() - began


def _run(command: Sequence[str], folder: Path, environ: Mapping[str, str], until: Callable[[], bool]) -> None:
    """Run a command until it ends, times out or `until` is true, then kill it and its children."""
    with (folder / "output").open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        give_up = time.monotonic() + TIMEOUT
        while process.poll() is None and time.monotonic() < give_up and not until():
            time.sleep(0.02)
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def others(directory: Path) -> Iterator[Contender | str]:
    """Yield the tools that could be installed, and the names of the others."""
    python = borrowed.python(directory)
    if python is None:
        yield from ("Scrapy", "async-batch-llm")
    else:
        spider = [str(python), "-m", "scrapy", "runspider", str(_PEERS / "spider.py"), "-s", "JOBDIR=job"]
        yield Contender("Scrapy", spider)
        yield Contender("async-batch-llm", [str(python), str(_PEERS / "batched.py")])
    parallel = borrowed.parallel(directory)
    yield "GNU parallel" if parallel is None else _parallel(parallel, directory)
    promptfoo = borrowed.promptfoo(directory)
    yield "promptfoo" if promptfoo is None else _promptfoo(promptfoo, directory)


def _parallel(program: Path, directory: Path) -> Contender:
    """Return GNU parallel: a job every 1/q seconds, a log of finished jobs, three attempts."""
    one = ["sh", str(_PEERS / "one.sh"), "{#}", "{}"]
    options = [
        "--will-cite",
        f"-j{CONCURRENCY}",
        "--delay",
        str(1 / RATE),
        "--retries",
        "3",
        "--joblog",
        "log",
        "--resume-failed",
    ]
    home = {"HOME": str(directory)}
    return Contender("GNU parallel", ["perl", str(program), *options, "-a", "prompts", *one], environ=home)


def _promptfoo(program: Path, directory: Path) -> Contender:
    """Return promptfoo, without `--delay`, which would make it send one request at a time."""
    options = [
        "-c",
        "promptfoo.json",
        f"-j{CONCURRENCY}",
        "--no-cache",
        "--no-table",
        "--no-progress-bar",
        "--no-share",
    ]
    quiet = {"HOME": str(directory), "PROMPTFOO_DISABLE_TELEMETRY": "1", "PROMPTFOO_DISABLE_UPDATE": "1"}
    begin = [str(program), "eval", *options]
    return Contender("promptfoo", begin, [str(program), "eval", "--resume", "--no-table", "--no-share"], environ=quiet)


def lay_out(folder: Path, rows: int, provider: Provider, token: str) -> dict[str, str]:
    """Write the input files of the tools, and return the environment with their paths."""
    files = folder / "files"
    files.mkdir(parents=True)
    prompts = [f"a numbered buoy, {row}" for row in range(rows)]
    (folder / "prompts").write_text("\n".join(prompts) + "\n", encoding="utf-8")
    tests = [{"vars": {"row": row, "prompt": prompt}} for row, prompt in enumerate(prompts)]
    config = {"prompts": ["{{prompt}}"], "providers": [f"file://{_PEERS / 'provider.mjs'}"], "tests": tests}
    (folder / "promptfoo.json").write_text(json.dumps(config), encoding="utf-8")
    return {
        "PATH": os.environ["PATH"],
        "URL": f"{provider.url}/open/v1/ai_creation/task",
        "TOKEN": token,
        "RATE": str(RATE),
        "FILES": str(files),
        "PROMPTS": str(folder / "prompts"),
        "PROMPTFOO_CONFIG_DIR": str(folder / "promptfoo"),
    }
