"""Export of results for other programs, from a shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from .conftest import images, sandbox, until


@pytest.mark.slow
def test_results_exist_during_a_run(desk):
    desk.write("job.yaml", images(4))
    with sandbox("--seconds", "30,40") as box:
        process = desk.start("run", "job.yaml", env=box.env)
        until(lambda: box.stats["accepted"] >= 2)
        rows = [json.loads(line) for line in desk.run("export", "job.yaml").stdout.splitlines()]
        assert [line["index"] for line in rows] == [1, 2, 3, 4]
        assert "running" in {line["state"] for line in rows}
        for shell, code in (("| head -c 1; exit ${PIPESTATUS[0]}", 0), ("> /dev/full", 14)):
            done = _shell(f"{sys.executable} -m runner export job.yaml {shell}", desk.root)
            assert (done.returncode, "Traceback" in done.stderr) == (code, False)
            assert ("stdout: No space left" in done.stderr) == (code == 14)
        process.kill()
        process.communicate()


def _shell(command: str, where) -> subprocess.CompletedProcess:
    env = {"PATH": os.environ["PATH"]}
    return subprocess.run(["bash", "-c", command], cwd=where, env=env, capture_output=True, text=True, check=False)
