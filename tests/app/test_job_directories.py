"""Jobs are found where they were found, and a job's outputs are not read to find them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.app.job_directories import job_directories


def make_job(directory):
    (directory / ".runner").mkdir(parents=True)
    (directory / ".runner/state.db").touch()
    return directory


@pytest.fixture
def read(monkeypatch):
    """Record the directories whose names are read."""
    scandir, seen = os.scandir, []
    monkeypatch.setattr(os, "scandir", lambda path: seen.append(Path(path)) or scandir(path))
    return seen


def test_jobs_are_found_to_the_third_level(tmp_path):
    places = ["", "b", "a", "a/nested", "out/x", "out/deep/y"]
    for place in places:
        make_job(tmp_path / place)
    make_job(tmp_path / "1/2/3/4")
    (tmp_path / "file").touch()
    found = [str(each.relative_to(tmp_path)) for each in job_directories(tmp_path)]
    assert found == [".", "a", "b", "a/nested", "out/x", "out/deep/y"]


def test_links_to_directories_are_followed(tmp_path):
    make_job(tmp_path / "elsewhere/job")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    assert list(job_directories(root)) == [root / "link/job"]


@pytest.mark.parametrize("with_gallery", [True, False])
def test_outputs_of_a_job_are_not_read(tmp_path, read, with_gallery):
    job = make_job(tmp_path / "job")
    (job / "0001-boat.png").touch()
    if with_gallery:
        (job / "gallery").mkdir()
    assert list(job_directories(tmp_path)) == [job]
    assert job not in read or job.stat().st_nlink < 2


def test_directories_of_outputs_are_not_read(tmp_path, read):
    job = make_job(tmp_path / "job")
    for name in ("00", "3f", "abc"):
        (job / name).mkdir()
        (job / name / "0001-boat.png").touch()
    nested = make_job(job / "beef/nested"), make_job(job / "ab")
    assert list(job_directories(tmp_path)) == [job, nested[1], nested[0]]
    assert not {job / "00", job / "3f", job / "abc"} & set(read) or job.stat().st_nlink < 2


def test_what_cannot_be_read_is_passed_over(tmp_path, monkeypatch):
    make_job(tmp_path / "job")
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert list(job_directories(tmp_path)) == [tmp_path / "job"]
