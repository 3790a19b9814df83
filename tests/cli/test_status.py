"""`status` is called often, so it imports as little as possible."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_CODE = """
import sys
from runner.cli.main import run
run(["status", sys.argv[1]])
costly = {"pydantic", "yaml", "httpx", "aiohttp", "asyncio", "jinja2", "structlog", "rich"}
print(*sorted({name.partition(".")[0] for name in sys.modules} & costly))
"""


@pytest.fixture
def status(desk):
    desk.write("job.yaml", "version: 1\nprovider: chanjing\nmodel: kling-v2-1\nparams: {prompt: a heron}\n")
    assert desk.run("run", "job.yaml", "--sandbox", "--quiet").code == 0
    job = desk.root / "out/job-sandbox"
    env = {**os.environ, "RUNNER_HOME": str(desk.root / "home")}
    return subprocess.run([sys.executable, "-c", _CODE, str(job)], env=env, capture_output=True, text=True, check=True)


@pytest.mark.slow
def test_status_without_prices_loads_no_spec(status):
    first, *_, loaded = status.stdout.splitlines()
    assert first == "job-sandbox: 1 done"
    assert loaded == ""
