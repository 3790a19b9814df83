"""Install other tools for the comparison `peers`, from the ordinary registries, into a directory of the session.

A tool that cannot be installed is left out. The project does not depend on any of them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: seconds that an installation may take
_TIMEOUT = 240
_NPM = ("--no-audit", "--no-fund", "--no-progress", "--ignore-scripts", "--loglevel=error")


def python(directory: Path) -> Path | None:
    """Return an interpreter with Scrapy and async-batch-llm, or None."""
    home = directory / "python"
    pip = [str(home / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = _succeeds([sys.executable, "-m", "venv", str(home)], directory) and _succeeds(
        [*pip, "scrapy", "async-batch-llm", "aiohttp"], directory
    )
    return home / "bin/python" if done else None


def promptfoo(directory: Path) -> Path | None:
    """Return the command of promptfoo, or None."""
    if shutil.which("npm") is None:
        return None
    home = directory / "node"
    done = _succeeds(["npm", "install", "--prefix", str(home), *_NPM, "promptfoo"], directory)
    return home / "node_modules/.bin/promptfoo" if done else None


def parallel(directory: Path) -> Path | None:
    """Return GNU parallel, installed on this machine or unpacked from Debian's package, or None."""
    found = shutil.which("parallel")
    if (
        found is not None
        and "GNU" in subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    ):
        return Path(found)
    if shutil.which("apt-get") is None or not _succeeds(["apt-get", "download", "parallel"], directory):
        return None
    for package in directory.glob("parallel_*.deb"):
        if _succeeds(["dpkg", "-x", str(package), str(directory / "debian")], directory):
            return directory / "debian/usr/bin/parallel"
    return None


def _succeeds(command: Sequence[str], directory: Path) -> bool:
    directory.mkdir(exist_ok=True)
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
