"""The gallery of a job, made by a run or by a user."""

from __future__ import annotations

import json
import re

import pytest

from .conftest import images, sandbox, until

FAST = ("--seconds", "0.05,0.1")


def cards(directory) -> list[list]:
    page = (directory / "index.html").read_text(encoding="utf-8")
    found = []
    for source in re.findall(r'<script src="(gallery/data-\w+\.js)" async>', page):
        text = (directory / source).read_text(encoding="utf-8")
        found += json.loads(text[text.index(", ") + 2 : -3])
    return found


@pytest.mark.slow
def test_every_run_ends_with_a_page(desk):
    out = desk.root / "out/job"
    desk.write("job.yaml", images(2))
    with sandbox(*FAST) as box:
        desk.job(env=box.env)
        assert [(card[0], card[5]) for card in cards(out)] == [(line["key"], "done") for line in desk.results()]
        assert all((out / file).is_file() for card in cards(out) for file, *_ in card[9])
        desk.write("job.yaml", images(3))
        desk.job(env=box.env)
    assert len(cards(out)) == 3
    assert len(list((out / "gallery").glob("data-*.js"))) == 1


@pytest.mark.slow
def test_page_can_be_made_during_a_run(desk):
    desk.write("job.yaml", images(3))
    with sandbox("--seconds", "30,40") as box:
        process = desk.start("run", "job.yaml", env=box.env)
        until(lambda: box.stats["accepted"] >= 2)
        report = json.loads(desk.run("gallery", "job.yaml", "--json").stdout)
        process.kill()
        process.communicate()
    assert (report["tasks"], report["total"], report["thumbnails"]["made"]) == (3, 3, 0)
    assert "running" in {card[5] for card in cards(desk.root / "out/job")}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["index.html", "gallery"])
def test_foreign_gallery_file_stays_and_run_ends_normally(desk, name):
    """A file that another program put there stays, and the run ends as usual."""
    desk.write("job.yaml", images(1))
    mine = desk.root / "out/job" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with sandbox(*FAST) as box:
        done = desk.run("run", "job.yaml", env=box.env)
    assert done.returncode == 0
    assert f"{name} is there already and was not made by runner" in done.stderr
    refused = desk.run("gallery", "job.yaml")
    assert (refused.returncode, "Move it away" in refused.stderr) == (2, True)
    assert mine.read_text() == "mine"


def test_missing_job_has_no_page(desk):
    (desk.root / "empty").mkdir()
    done = desk.run("gallery", "empty")
    assert (done.returncode, list((desk.root / "empty").iterdir())) == (10, [])


@pytest.mark.slow
def test_large_files_get_thumbnails_at_end_of_run(desk):
    desk.write("job.yaml", images(3))
    with sandbox(*FAST, "--file-bytes", str(12 << 20)) as box:
        desk.job(env=box.env)
    folder = desk.root / "out/job/gallery"
    assert {card[9][0][3] for card in cards(desk.root / "out/job")} == {path.name for path in folder.glob("*.webp")}
    assert len(list(folder.glob("*.webp"))) == 3
