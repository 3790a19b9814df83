"""The sandbox as a child process for the length of a run.

The process ends when its standard input closes.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import orjson

from runner.app.provider_config import SANDBOX_VARIABLE
from runner.errors import ConfigError
from runner.files import make_directory
from runner.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


_MAX_LINE_BYTES = 64 * 1024


@contextmanager
def sandbox_process(settings: Settings, ledger: Path, options: Sequence[str] = ()) -> Iterator[Settings]:
    """Start a sandbox and yield settings that lead to it.

    Stops the sandbox at the end.
    The ledger is kept, so that the next run finds the tasks of this one. `options` are extra command-line arguments.
    Raises ConfigError if the sandbox does not start.
    """
    make_directory(ledger.parent)
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
    # in its own session, so that Ctrl-C reaches only the runner, which still needs answers while it drains
    process = subprocess.Popen(  # noqa: S603 - our own module, no shell
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        yield Settings({**_without_addresses(settings), **_announced_environment(process), SANDBOX_VARIABLE: "1"})
    finally:
        process.communicate()


def _without_addresses(settings: Settings) -> dict[str, str]:
    """Return the environment without any provider's address or key.

    A provider that the sandbox does not serve must not be reached at its real address.
    """
    ends = ("_BASE_URL", "_API_KEY", "_APP_ID", "_SECRET_KEY", "_ACCESS_KEY", "_ACCESS_TOKEN")
    return {name: value for name, value in settings.environ.items() if not name.removesuffix("_FILE").endswith(ends)}


def _announced_environment(process: subprocess.Popen[bytes]) -> dict[str, str]:
    """Return the variables of the first line that the sandbox prints.

    They hold its addresses.
    """
    line = process.stdout.readline(_MAX_LINE_BYTES) if process.stdout else b""
    if not line:
        raise ConfigError("the sandbox did not start", hint="Its own words stand above.")
    found: dict[str, str] = orjson.loads(line)["env"]
    return found


def ledger_path(state: Path) -> Path:
    """Return the file in which a job's sandbox records the tasks that it accepts."""
    return state / "sandbox.jsonl"


def is_sandbox(state: Path) -> bool:
    """Return True if the sandbox has ever served this job, so that nothing in it was paid."""
    return ledger_path(state).exists()
