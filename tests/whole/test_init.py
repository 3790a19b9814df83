"""What `init` writes goes all the way."""

from __future__ import annotations


def test_the_first_manifest_runs_in_the_sandbox_as_it_stands(desk):
    assert desk.run("init").returncode == 0
    assert desk.job("job.yaml", "--sandbox")["counts"] == {"done": 4}


def test_a_table_in_the_place_of_a_provider_is_the_table(desk):
    desk.write("goods.csv", "产品\n青瓷茶壶\n铜香炉\n")
    assert desk.run("init", "goods.csv").returncode == 0
    assert '"{{ 产品 }}"' in (desk.root / "goods.yaml").read_text(encoding="utf-8")
    assert desk.run("plan", "goods.yaml").returncode == 0
