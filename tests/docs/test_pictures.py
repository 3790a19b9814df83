"""The drawing of a terminal is of this program, small and self-contained, and reproducible."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

PICTURES = Path(__file__).parents[2] / "docs/pictures"
#: words of the plan, the live view and the summary
WORDS = ("to submit", "price", "time", "files", "running", "downloading", "done", "this run")
SMALL = """\
version: 1
provider: kling
model: image/kling-v2-1
params: {prompt: "{{ bird }} & <reeds>"}
matrix: {bird: [苍鹭, heron, crane, egret]}
cost: 8
limits: {qps: 8}
"""


@pytest.fixture(scope="module")
def terminal():
    path = PICTURES / "terminal.py"
    spec = importlib.util.spec_from_file_location("terminal", path)
    module = sys.modules["terminal"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["terminal"]


def words(svg: str) -> list[str]:
    return [text for each in ET.fromstring(svg).itertext() if (text := each.strip())]


def test_drawing_is_small_and_loads_nothing():
    svg = (PICTURES / "terminal.svg").read_text(encoding="utf-8")
    assert len(svg.encode()) < 100_000
    assert re.findall(r"script|href|@import|url\(|\son\w+=", svg) == []
    assert set(re.findall(r"\w+://[^\"]*", svg)) == {"http://www.w3.org/2000/svg"}
    assert re.findall(r"/(?:home|work|tmp|root)/", svg) == []
    assert [text for text in WORDS if not any(word.startswith(text) for word in words(svg))] == []


@pytest.mark.slow
def test_drawing_is_reproducible(terminal):
    drawn = words(terminal.draw(SMALL))
    assert [text for text in WORDS if not any(word.startswith(text) for word in drawn)] == []
    assert "herons: 4 tasks for kling image/kling-v2-1" in drawn
    assert '{"prompt":"苍鹭 & <reeds>"}' in drawn
    assert "herons: 4 done" in drawn


def test_drawing_shows_moment_nearest_to_half(terminal):
    back = "\x1b[2K\x1b[1A\x1b[2K"
    seen = f"a  0 of 4 done\n  x{back}a  1 of 4 done\n  y{back}a  3 of 4 done\n  z{back}a: 4 done\n  end\n"
    assert terminal.moment(seen) == ("a  1 of 4 done\n  y", "a: 4 done\n  end")


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_both_readmes_show_the_drawing(name, document):
    assert "docs/pictures/terminal.svg" in document(name).links
