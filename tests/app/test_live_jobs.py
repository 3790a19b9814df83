"""Which files the live page serves: outputs, also those in directories of outputs, and nothing behind a link."""

from __future__ import annotations

import pytest

from runner.app.live_jobs import LiveJobs
from tests.store.conftest import bench, home

__all__ = ["bench", "home"]


@pytest.fixture
async def served(bench, home):
    async with bench() as made:
        await made.add(1)
    directory = home.parent
    for name in ("1.png", "3f/2.png", "3f/.3.png", "abc/4.png", "abcd/5.png", "3f/deep/6.png", "parts/7.png"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).touch()
    (directory.parent / "elsewhere").mkdir()
    (directory.parent / "elsewhere/8.png").touch()
    (directory / "aa").symlink_to(directory.parent / "elsewhere")
    live = LiveJobs(directory.parent)
    live._jobs, _, _ = live._scan(0.0)
    (name,) = live._jobs
    return lambda path: live.file(name, path)


@pytest.mark.parametrize("path", ["1.png", "3f/2.png", "abc/4.png"])
async def test_outputs_are_served(served, home, path):
    assert served(path) == home.parent / path


HIDDEN = [
    "3f/.3.png",
    "abcd/5.png",
    "3f/deep/6.png",
    "parts/7.png",
    "aa/8.png",
    "3f/../1.png",
    "../elsewhere/8.png",
    "3f/",
]


@pytest.mark.parametrize("path", HIDDEN)
async def test_nothing_else_is_served(served, path):
    assert served(path) is None
