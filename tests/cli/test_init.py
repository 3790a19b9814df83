"""`init` and `schema`: a first manifest, from nothing or from a table of the user."""

from __future__ import annotations

import json

import pytest

CHANJING = {"CHANJING_APP_ID": "a", "CHANJING_SECRET_KEY": "b"}


def init_result(desk, *words, **env) -> dict:
    done = desk.run("init", *words, "--json", **env)
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_first_manifest_plans_cleanly(desk):
    done = desk.run("init")
    assert (done.code, done.err) == (0, "")
    assert "CHANJING_APP_ID + CHANJING_SECRET_KEY or CHANJING_ACCESS_TOKEN" in done.out
    planned = json.loads(desk.run("plan", "job.yaml", "--json").out)
    assert (planned["tasks"], planned["merged"], planned["warnings"]) == (4, 0, [])


def test_chinese_table_becomes_a_plan(desk):
    (desk.root / "产品.csv").write_text(
        "产品名称,场景描述,aspect_ratio\r\n青瓷茶壶,竹影下,9:16\r\n木鸟,,1:1\r\n", encoding="utf-8-sig"
    )
    assert init_result(desk, "kling", "--items", "产品.csv")["manifest"] == "产品.yaml"
    planned = json.loads(desk.run("plan", "产品.yaml", "--json").out)
    requests = [sample["request"] for sample in planned["samples"]]
    assert [request["prompt"] for request in requests] == ["青瓷茶壶", "木鸟"]
    assert [request["aspect_ratio"] for request in requests] == ["9:16", "1:1"]


def test_table_path_is_relative_to_the_manifest(desk):
    for name in ("tables", "jobs"):
        (desk.root / name).mkdir()
    desk.write("tables/birds.csv", "bird\nheron\n")
    assert init_result(desk, "--items", "tables/birds.csv", "-o", "jobs/birds.yaml")["tasks"] == 1
    assert "file: ../tables/birds.csv" in (desk.root / "jobs/birds.yaml").read_text().replace('"', "")
    assert desk.run("validate", "jobs/birds.yaml").code == 0


def test_nothing_is_overwritten(desk):
    desk.write("job.yaml", "mine")
    (desk.root / "link.yaml").symlink_to("nowhere")
    for words in ((), ("-o", "job.yaml"), ("-o", "link.yaml"), ("-o", ".")):
        done = desk.run("init", *words)
        assert done.code == 2
        assert "is there already" in done.err
    assert (desk.root / "job.yaml").read_text() == "mine"
    assert not (desk.root / "nowhere").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nobody",), "unknown provider"),
        (("kling", "--model", "v9"), "has no model"),
        (("--items", "none.csv"), "No such file"),
        (("--items", "gb.csv"), "iconv -f GB18030 -t UTF-8 gb.csv > gb-utf8.csv"),
        (("--items", "broken.csv"), "broken.csv:3"),
        (("-o", "nowhere/job.yaml"), "no directory nowhere"),
        (("--items", "a\tb.csv"), "cannot stand in a manifest"),
    ],
)
def test_errors_are_reported_and_nothing_is_written(desk, words, message):
    (desk.root / "gb.csv").write_bytes("产品\n茶壶\n".encode("gb18030"))
    desk.write("broken.csv", "bird,aspect_ratio\nheron,1:1\nstork,7:8\n")
    done = desk.run("init", *words)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert list(desk.root.glob("**/*.yaml")) == list(desk.root.glob(".*")) == []


def test_default_provider_is_the_one_with_credentials(desk):
    assert init_result(desk, "-o", "a.yaml")["provider"] == "chanjing"
    assert init_result(desk, "-o", "b.yaml", KLING_API_KEY="k")["provider"] == "kling"
    assert init_result(desk, "-o", "c.yaml", KLING_API_KEY="k", **CHANJING)["provider"] == "chanjing"


def test_gateway_names_its_base_url_variable(desk):
    assert "KLING_GATEWAY_BASE_URL" in desk.run("init", "kling-gateway").out


def test_schema_is_written_beside_the_manifest(desk):
    desk.run("init")
    path = desk.root / ".runner-schema.json"
    printed = json.loads(desk.run("schema").out)
    ours = json.loads(path.read_text())
    mark = ours.pop("$comment")
    assert ours == printed
    assert {"version", "provider", "params", "matrix", "limits"} <= printed["properties"].keys()
    path.write_text(json.dumps({"$comment": mark, "old": 1}))
    desk.run("init", "-o", "second.yaml")
    assert json.loads(path.read_text()) == {"$comment": mark, **printed}


def test_foreign_schema_file_stays(desk):
    desk.write(".runner-schema.json", "{}")
    done = desk.run("init")
    assert done.code == 0
    assert "is not ours and stays" in done.err
    assert (desk.root / ".runner-schema.json").read_text() == "{}"
