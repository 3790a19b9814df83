"""Two articles with one text are one purchase, and both have a file and a line in results.jsonl."""

from __future__ import annotations

import csv
import io

import pytest

from .conftest import sandbox

MANIFEST = """\
version: 1
provider: chanjing
model: kling-v2-1
params: {prompt: "{{ product }}", aspect_ratio: "1:1"}
items: {file: rows.csv}
output: {name: "{{ sku }}"}
limits: {qps: 50}
"""
ROWS = "sku,product\nA-1,cup\nA-2,cup\nA-3,fox\nA-4,cup\n"
ALL = ["A-1.png", "A-2.png", "A-3.png", "A-4.png"]


def files(desk) -> list[str]:
    return sorted(path.name for path in (desk.root / "out/job").glob("*.*") if path.suffix in {".png", ".jpg"})


@pytest.fixture
def bought(desk):
    desk.write("job.yaml", MANIFEST)
    desk.write("rows.csv", ROWS)
    with sandbox("--seconds", "0.1,0.2") as box:
        desk.env = box.env
        summary = desk.job()
        assert (summary["counts"], summary["submitted"]) == ({"done": 2}, 2)
        yield box
        assert len(box.accepted) == 2 + getattr(box, "more", 0)


@pytest.mark.slow
def test_every_article_has_a_file_and_a_line(desk, bought):
    stems = [name.rpartition(".")[0] for name in files(desk)]
    assert stems == ["A-1", "A-2", "A-3", "A-4"]
    rows = {row["vars"]["sku"]: row for row in desk.results()}
    assert [row["vars"]["sku"] for row in desk.results()] == ["A-1", "A-2", "A-4", "A-3"]
    assert len({row["key"] for row in rows.values()}) == 4
    assert [rows[sku].get("same_as") for sku in ("A-1", "A-2", "A-3", "A-4")] == [
        None, rows["A-1"]["key"], None, rows["A-1"]["key"],
    ]  # fmt: skip
    for sku, row in rows.items():
        (output,) = row["outputs"]
        assert (row["state"], output["file"].rpartition(".")[0]) == ("done", sku)
        assert output["sha256"] == rows["A-1" if sku != "A-3" else sku]["outputs"][0]["sha256"]
        assert (desk.root / "out/job" / output["file"]).is_file()
    assert [row["attempts"] for row in desk.results()] == [1, 0, 0, 1]
    table = list(csv.DictReader(io.StringIO(desk.run("export", "job.yaml", "--format", "csv").stdout.lstrip("\ufeff"))))
    assert [row["vars.sku"] for row in table] == ["A-1", "A-2", "A-4", "A-3"]
    lines = desk.run("export", "job.yaml").stdout
    assert lines == (desk.root / "out/job/results.jsonl").read_text(encoding="utf-8")


@pytest.mark.slow
def test_lost_file_of_an_article_comes_back(desk, bought):
    extra = desk.root / "out/job" / next(name for name in files(desk) if name.startswith("A-2"))
    content = extra.read_bytes()
    extra.unlink()
    (desk.root / "out/job/.runner/results.index").unlink()
    assert desk.job()["submitted"] == 0
    assert extra.read_bytes() == content
    extra.unlink()
    extra.write_bytes(b"of somebody else")
    assert desk.job()["submitted"] == 0
    assert extra.read_bytes() == b"of somebody else"
    (row,) = [row for row in desk.results() if row["vars"]["sku"] == "A-2"]
    assert row["outputs"][0]["file"].startswith(f"A-2-{row['key'][:8]}.")
    assert (desk.root / "out/job" / row["outputs"][0]["file"]).read_bytes() == content


@pytest.mark.slow
def test_edits_of_the_table_are_followed(desk, bought):
    """An article leaves, one comes, one gets another text; what was bought is kept."""
    desk.write("rows.csv", "sku,product\nA-1,cup\nA-5,cup\nA-3,fox\n")
    assert desk.job()["submitted"] == 0
    assert [row["vars"]["sku"] for row in desk.results()] == ["A-1", "A-5", "A-3"]
    assert (desk.root / "out/job" / desk.results()[1]["outputs"][0]["file"]).is_file()
    desk.write("rows.csv", "sku,product\nA-1,cup\nA-5,bird\nA-3,fox\n")
    assert desk.job()["submitted"] == 1
    bought.more = 1
    assert not any("same_as" in row for row in desk.results())
    assert not (desk.root / "out/job/.runner/merged.jsonl").exists()


@pytest.mark.slow
def test_articles_are_renamed_with_their_task(desk, bought):
    desk.write("job.yaml", MANIFEST.replace('"{{ sku }}"', '"x-{{ sku }}"'))
    assert desk.job()["submitted"] == 0
    assert [name.rpartition(".")[0] for name in files(desk)] == ["x-A-1", "x-A-2", "x-A-3", "x-A-4"]


@pytest.mark.slow
def test_job_directory_of_before_gets_its_files(desk, bought):
    """A version before left no record, and an unchanged manifest is not read again: the files come all the same."""
    home = desk.root / "out/job"
    for name in files(desk):
        if name[:3] in {"A-2", "A-4"}:
            (home / name).unlink()
    (home / ".runner/merged.jsonl").unlink()
    assert desk.job()["submitted"] == 0
    assert len(files(desk)) == 4


@pytest.mark.slow
def test_rows_without_names_of_their_own_share_the_file(desk):
    desk.write("job.yaml", MANIFEST.replace('output: {name: "{{ sku }}"}\n', ""))
    desk.write("rows.csv", ROWS + "A-1,cup\n")
    with sandbox("--seconds", "0.1,0.2") as box:
        desk.env = box.env
        assert desk.job()["submitted"] == 2
    assert len(files(desk)) == 2
    assert [row["vars"]["sku"] for row in desk.results()] == ["A-1", "A-2", "A-4", "A-3"]
    assert len({row["outputs"][0]["file"] for row in desk.results()}) == 2


@pytest.mark.slow
def test_line_of_an_article_shows_what_became_of_the_task(desk):
    desk.write("job.yaml", MANIFEST)
    desk.write("rows.csv", ROWS.replace("cup", "违规 cup"))
    with sandbox("--seconds", "0.1,0.2") as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"done": 1, "failed": 1}
    lines = [(row["vars"]["sku"], row["state"], row["error"]["reason"]) for row in desk.results()]
    assert lines == [(f"A-{number}", "failed", "moderation") for number in (1, 2, 4)] + [("A-3", "done", None)]
    assert len(files(desk)) == 1
