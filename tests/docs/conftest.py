"""Parsed documents: headings, links, tables and code blocks with the comment before them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"\[[^]\n]*\]\(([^)\s]+)\)")
#: seconds that one command may take
_PATIENCE = 60


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    note: str

    @property
    def file(self) -> str | None:
        """Return the name of the file whose content the block is."""
        return self.note.removeprefix("file: ") if self.note.startswith("file: ") else None

    @property
    def runs(self) -> bool:
        return not self.note.startswith("not run: ")

    @property
    def commands(self) -> list[str]:
        lines = (line.split(" #", 1)[0].strip() for line in self.text.splitlines())
        return [line for line in lines if line and not line.startswith("#")]


class Document:
    def __init__(self, name: str) -> None:
        self.path = ROOT / name
        self.text = self.path.read_text(encoding="utf-8")

    def __repr__(self) -> str:
        return self.path.name

    @cached_property
    def blocks(self) -> list[Block]:
        return [
            Block(found["language"], found["text"], (found["note"] or "").strip())
            for found in _BLOCK.finditer(self.text)
        ]

    @cached_property
    def prose(self) -> str:
        return _BLOCK.sub("", self.text)

    @property
    def headings(self) -> list[int]:
        """Return the level of each heading, in order."""
        return [len(line) - len(line.lstrip("#")) for line in self.prose.splitlines() if line.startswith("#")]

    @property
    def links(self) -> list[str]:
        return _LINK.findall(self.prose)

    def of(self, language: str) -> list[Block]:
        return [block for block in self.blocks if block.language == language]

    def noted(self, note: str) -> Block:
        (found,) = (block for block in self.blocks if block.note == note)
        return found

    def table(self, head: str) -> list[list[str]]:
        """Return the rows of the first table whose first heading is `head`."""
        (rows, *_) = self.tables(head)
        return rows

    def tables(self, head: str) -> list[list[list[str]]]:
        found = re.findall(rf"^\| {re.escape(head)} \|.*\n\| ---.*\n((?:\|.*\n)+)", self.prose, re.MULTILINE)
        return [[[cell.strip() for cell in line.strip("|").split("|")] for line in rows.splitlines()] for rows in found]


class Desk:
    """A directory, an environment without credentials, and the command."""

    def __init__(self, path: Path) -> None:
        self.path = path
        kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "TMPDIR"}}
        self.env = {**kept, "RUNNER_HOME": str(path / "home"), "NO_COLOR": "1", "PYTHONUTF8": "1"}

    def lay_out(self, document: Document) -> list[str]:
        """Write the document's named blocks, and return their names."""
        named = {block.file: block.text for block in document.blocks if block.file}
        for name, text in named.items():
            (self.path / name).write_text(text, encoding="utf-8")
        return list(named)

    def runner(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "runner", *words],
            cwd=self.path,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=_PATIENCE,
            check=False,
        )


@pytest.fixture
def desk(tmp_path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def document():
    return Document
