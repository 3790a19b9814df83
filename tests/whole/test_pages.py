"""Kills while the tasks of a large job are still being added: nothing is bought twice, and no task is left out."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import pytest

from .conftest import TIMEOUT, images, sandbox

TASKS, KILLS = 60, 8
#: the command with pages of two tasks, each of which takes a while
_COMMAND = """
import anyio
from runner.app import enqueue, run_context
from runner.store.store import Store
run_context.PAGED_FROM, enqueue._FIRST_PAGE, enqueue._PAGE = 10, 2, 2
add = Store.add_page
async def add_page(store, page, now, **keys):
    await anyio.sleep(0.03)
    await add(store, page, now, **keys)
Store.add_page = add_page
from runner.__main__ import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("provider", "model"), [("chanjing", "kling-v2-1"), ("kling", "image/kling-v2-1")])
def test_kills_while_tasks_are_added_buy_nothing_twice(desk, provider, model):
    seed = random.SystemRandom().randrange(10**9)
    moments = random.Random(seed)
    desk.write("job.yaml", images(TASKS, provider=provider, model=model, qps=20))
    with sandbox("--seconds", "0.1,0.3", "--accept-delay-s", "0.05") as box:
        names = ("PATH", "HOME", "LANG")
        inherited = {name: os.environ[name] for name in names if name in os.environ}
        env = {**inherited, "RUNNER_HOME": str(desk.root / "home"), **box.env}
        for _ in range(KILLS):
            command = [sys.executable, "-c", _COMMAND, "run", "job.yaml", "--json"]
            process = subprocess.Popen(command, cwd=desk.root, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            try:
                process.communicate(timeout=moments.uniform(0.6, 2.5))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
        done = subprocess.run(command, cwd=desk.root, env=env, capture_output=True, timeout=TIMEOUT, check=False)
        summary = json.loads(done.stdout)
        assert summary["counts"] == {"done": TASKS}, (seed, summary["reasons"], done.stderr)
        assert box.stats["accepted"] == TASKS, seed
