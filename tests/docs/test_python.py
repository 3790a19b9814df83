"""The page on the Python interface: every block runs and prints what the page shows."""

from __future__ import annotations

import ast
import asyncio
from importlib.util import find_spec
from inspect import iscoroutine

import pytest

import runner
from runner.api import Progress, TaskChanged, Warned


def _needed(block) -> list[str]:
    return block.note.removeprefix("needs: ").split() if block.note.startswith("needs: ") else []


@pytest.mark.slow
def test_every_block_runs_and_prints_what_is_shown(desk, document, monkeypatch, capsys):
    page = document("docs/python.md")
    desk.lay_out(page)
    monkeypatch.chdir(desk.path)
    monkeypatch.setenv("RUNNER_HOME", desk.env["RUNNER_HOME"])
    names: dict[str, object] = {}
    for block, following in zip(page.blocks, [*page.blocks[1:], None], strict=True):
        if block.language != "python" or not all(map(find_spec, _needed(block))):
            continue
        code = compile(block.text, "docs/python.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        made = eval(code, names)
        if iscoroutine(made):
            asyncio.run(made)
        printed = capsys.readouterr().out
        if following is not None and following.language == "text":
            assert printed == following.text
    assert names["bar"][-1] == 1.0
    assert [block.language for block in page.blocks].count("python") >= 8


def test_every_event_is_listed(document):
    rows = document("docs/python.md").table("event")
    for kind, row in zip((TaskChanged, Progress, Warned), rows, strict=True):
        assert row[0] == f"`{kind.__name__}`"
        assert getattr(runner, kind.__name__) is kind
        named = [word.strip("`") for word in row[1].replace(",", " ").replace(";", " ").split() if word.startswith("`")]
        assert [name for name in named if name not in {*kind.__dataclass_fields__, "runner", "logging"}] == []


def test_every_function_is_shown(document):
    text = document("docs/python.md").text
    functions = [name for name in runner.__all__ if not name.startswith("__")]
    unseen = [
        name
        for name in functions
        if name not in text and name not in {"Plan", "RunResult", "TaskResult", "RunnerError"}
    ]
    assert unseen == []
