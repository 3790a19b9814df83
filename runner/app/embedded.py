"""The sandbox as a process of its own, for the length of a run: it ends when its standard input does."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import orjson

from runner.errors import ConfigError
from runner.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_LONGEST_LINE = 64 * 1024


@contextmanager
def sandbox(settings: Settings, ledger: Path, options: Sequence[str] = ()) -> Iterator[Settings]:
    """Settings that lead to a sandbox; its ledger is kept, so that the next run finds the tasks of this one."""
    ledger.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "runner.sandbox",
        "--json",
        "--until-stdin-closes",
        "--ledger",
        str(ledger),
        *options,
    ]
    # a session of its own: Ctrl-C is for the runner, which still needs answers while it drains
    process = subprocess.Popen(  # noqa: S603 - our own module, no shell
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        yield Settings({**settings.environ, **_environment(process)})
    finally:
        process.communicate()


def _environment(process: subprocess.Popen[bytes]) -> dict[str, str]:
    """The first line that the sandbox prints says where it is."""
    line = process.stdout.readline(_LONGEST_LINE) if process.stdout else b""
    if not line:
        raise ConfigError("the sandbox did not start", hint="Its own words stand above.")
    found: dict[str, str] = orjson.loads(line)["env"]
    return found
