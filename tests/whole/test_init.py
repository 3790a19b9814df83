"""What `init` writes goes all the way."""

from __future__ import annotations


def test_the_first_manifest_runs_in_the_sandbox_as_it_stands(desk):
    assert desk.run("init").returncode == 0
    assert desk.job("job.yaml", "--sandbox")["counts"] == {"done": 4}
