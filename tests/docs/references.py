"""Codes, pages and anchors that code and documents refer to, and those that exist."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: pages that explain codes, each in a row with an anchor
TABLES = ("docs/faults.md", "docs/attacks.md", "docs/invariants.md")
TREES = ("runner", "tests", "benchmarks", "docs", "jobs")
#: looks like a code and is none
NO_CODE = {"MP3", "MP4", "ID3", "VP8", "VP9", "S3"}

#: what tests this check names codes and pages that do not exist
_SAMPLES = {"tests/docs/test_references.py"}
_SUFFIXES = {".py", ".md", ".sql", ".yaml"}
_CODE = re.compile(r"(?<![\w.&#-])[A-Z]{1,2}\d{1,2}(?!\w)")
_IN_PARENTHESES = re.compile(r"\((?:\w+\.md )?([A-Z]{1,2}\d{1,2}(?:(?:, | and | or | to |[-/])[A-Z]{1,2}\d{1,2})*)\)")
_LABEL = re.compile(r"([A-Z]{1,2}\d{1,2})(?=:|$)")
_TEST_NAME = re.compile(r"test_(f[a-z]|[a-z])(\d\d)_\w+")
_PAGE = re.compile(r"(?<![\w.*{}/-])(?:[\w.-]+/)*[\w-]+(?:\.[\w-]+)*\.md\b")
_SECTION = re.compile(rf"({_PAGE.pattern}),? section (\d+)")
_LINK = re.compile(r"\[[^]\n]*\]\(([^)\s]+)\)")
_ANCHOR = re.compile(r'<a id="([^"]+)"></a>(\S*)')
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Text:
    """A piece of text in which codes count."""

    line: int
    text: str
    #: a whole string literal, in which only a label such as "I7: …" is a code
    literal: bool = False


class Repository:
    """A directory with the trees of this repository; tests make small ones."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def files(self) -> list[Path]:
        inside = (path for tree in TREES for path in (self.root / tree).rglob("*"))
        found = (path for path in [*self.root.glob("*.md"), *inside] if path.suffix in _SUFFIXES)
        return sorted(path for path in found if self._name(path) not in _SAMPLES)

    @cached_property
    def codes(self) -> set[str]:
        """Codes that have an anchor, written as they are: the anchor is the code in small letters."""
        found = set()
        for page in TABLES:
            path = self.root / page
            anchors = _ANCHOR.findall(path.read_text(encoding="utf-8")) if path.exists() else []
            found |= {code for anchor, code in anchors if anchor == code.lower()}
        return found

    @cached_property
    def families(self) -> set[str]:
        """The letters that begin a known code."""
        return {code.rstrip("0123456789") for code in self.codes}

    def unknown_codes(self, tree: str) -> list[str]:
        """Return `path:line: code` for each code below the tree that no table explains."""
        found = []
        for path in self._below(tree):
            for piece in _pieces(path):
                unknown = sorted(set(self._codes_in(piece)) - self.codes)
                found += [f"{self._name(path)}:{piece.line}: {code}" for code in unknown]
        return found

    def _codes_in(self, piece: Text) -> Iterator[str]:
        if piece.literal:
            label = _LABEL.match(piece.text)
            mentioned = [label[1]] if label else []
        else:
            for group in _IN_PARENTHESES.findall(piece.text):
                yield from (code for code in _CODE.findall(group) if code not in NO_CODE)
            mentioned = _CODE.findall(piece.text)
        yield from (code for code in mentioned if code.rstrip("0123456789") in self.families and code not in NO_CODE)

    def missing_pages(self, tree: str) -> list[str]:
        """Return `path:line: page` for each page named below the tree that is missing, or lacks a named section."""
        found = []
        for path in self._below(tree):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if ".md" not in line:
                    continue
                place = f"{self._name(path)}:{number}"
                named = [name for name in _PAGE.findall(line) if "://" not in line[: line.find(name)].split(" ")[-1]]
                found += [f"{place}: {name}" for name in named if self._page(path, name) is None]
                for name, section in _SECTION.findall(line):
                    page = self._page(path, name)
                    if page and not re.search(rf"^#+ {section}\.? ", page.read_text(encoding="utf-8"), re.MULTILINE):
                        found.append(f"{place}: {name} section {section}")
        return found

    def dead_anchors(self) -> list[str]:
        """Return `path: link` for each link between documents whose anchor does not exist."""
        found = []
        for path in self.files:
            if path.suffix != ".md":
                continue
            for link in _LINK.findall(_FENCE.sub("", path.read_text(encoding="utf-8"))):
                name, mark, anchor = link.partition("#")
                target = (path.parent / name) if name else path
                if not mark or "://" in link or target.suffix != ".md":
                    continue
                if not target.exists() or anchor not in anchors(target.read_text(encoding="utf-8")):
                    found.append(f"{self._name(path)}: {link}")
        return found

    def _below(self, tree: str) -> list[Path]:
        top = self.root / tree
        return [path for path in self.files if path.is_relative_to(top) and (tree or path.parent == top)]

    def _page(self, path: Path, name: str) -> Path | None:
        places = (self.root, self.root / "docs", path.parent)
        return next((place / name for place in places if (place / name).is_file()), None)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def anchors(text: str) -> set[str]:
    """Return the anchors of a page: its headings as GitHub writes them, and those that are set by hand."""
    found = {anchor for anchor, _ in _ANCHOR.findall(text)}
    for heading in re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found.add(slug if slug not in found else f"{slug}-{sum(each.startswith(slug) for each in found)}")
    return found


def _pieces(path: Path) -> Iterator[Text]:
    text = path.read_text(encoding="utf-8")
    match path.suffix:
        case ".py":
            yield from _python(text)
        case ".md":
            blank = _FENCE.sub(lambda block: "\n" * block[0].count("\n"), text)
            yield from (Text(number, line) for number, line in enumerate(blank.splitlines(), 1))
        case _:
            comment = "--" if path.suffix == ".sql" else "#"
            for number, line in enumerate(text.splitlines(), 1):
                if comment in line:
                    yield Text(number, line.partition(comment)[2])


def _python(text: str) -> Iterator[Text]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield Text(token.start[0], token.string)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and (docstring := ast.get_docstring(node, clean=False)):
            docstrings.add(id(node.body[0].value))
            yield Text(node.body[0].lineno, docstring)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (hit := _TEST_NAME.fullmatch(node.name)):
            yield Text(node.lineno, f"{hit[1].upper()}{int(hit[2])}")
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield Text(node.lineno, node.value, literal=True)
