"""Run the command in this process, in a directory of its own and without credentials."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import pytest

from runner.cli.main import run

if TYPE_CHECKING:
    from pathlib import Path

_KEPT = ("PATH", "LANG", "TMPDIR", "PYTHONPATH")


class Done(NamedTuple):
    code: int
    out: str
    err: str


class Desk:
    """Directory in which the command runs."""

    def __init__(self, root: Path, capture, monkeypatch) -> None:
        self.root = root
        self._capture = capture
        self._patch = monkeypatch

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.write_text(text, encoding="utf-8")
        return path

    def run(self, *words: object, **env: str) -> Done:
        with self._patch.context() as patch:
            for name in os.environ:
                if name not in _KEPT:
                    patch.delenv(name)
            patch.setenv("RUNNER_HOME", str(self.root / "home"))
            for name, value in env.items():
                patch.setenv(name, value)
            patch.chdir(self.root)
            self._capture.readouterr()
            code = run([str(word) for word in words])
        out, err = self._capture.readouterr()
        return Done(code, out, err)


@pytest.fixture
def desk(tmp_path, capsys, monkeypatch) -> Desk:
    return Desk(tmp_path, capsys, monkeypatch)
