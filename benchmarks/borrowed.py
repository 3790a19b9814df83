"""What people would use instead, installed beside the project for one session; what cannot be is left out.

By name, from the ordinary registries, into a directory of the session's own: nothing of it belongs to the project.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: seconds that one of them may take to come
_PATIENCE = 240
_NPM = ("--no-audit", "--no-fund", "--no-progress", "--ignore-scripts", "--loglevel=error")


def python(directory: Path) -> Path | None:
    """An interpreter that has Scrapy and async-batch-llm."""
    home = directory / "python"
    pip = [str(home / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = _done([sys.executable, "-m", "venv", str(home)], directory) and _done(
        [*pip, "scrapy", "async-batch-llm", "aiohttp"], directory
    )
    return home / "bin/python" if done else None


def promptfoo(directory: Path) -> Path | None:
    """promptfoo's command."""
    if shutil.which("npm") is None:
        return None
    home = directory / "node"
    done = _done(["npm", "install", "--prefix", str(home), *_NPM, "promptfoo"], directory)
    return home / "node_modules/.bin/promptfoo" if done else None


def parallel(directory: Path) -> Path | None:
    """GNU parallel: the machine's own, or Debian's package unpacked."""
    found = shutil.which("parallel")
    if (
        found is not None
        and "GNU" in subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    ):
        return Path(found)
    if shutil.which("apt-get") is None or not _done(["apt-get", "download", "parallel"], directory):
        return None
    for package in directory.glob("parallel_*.deb"):
        if _done(["dpkg", "-x", str(package), str(directory / "debian")], directory):
            return directory / "debian/usr/bin/parallel"
    return None


def _done(command: Sequence[str], directory: Path) -> bool:
    directory.mkdir(exist_ok=True)
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
