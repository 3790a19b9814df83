"""Manifests written by `init` run to the end."""

from __future__ import annotations

import pytest


@pytest.mark.slow
def test_first_manifest_runs_in_sandbox_unchanged(desk):
    assert desk.run("init").returncode == 0
    assert desk.job("job.yaml", "--sandbox")["counts"] == {"done": 4}


@pytest.mark.slow
def test_table_instead_of_provider_is_used_as_table(desk):
    desk.write("goods.csv", "产品\n青瓷茶壶\n铜香炉\n")
    assert desk.run("init", "goods.csv").returncode == 0
    assert '"{{ 产品 }}"' in (desk.root / "goods.yaml").read_text(encoding="utf-8")
    assert desk.run("plan", "goods.yaml").returncode == 0
