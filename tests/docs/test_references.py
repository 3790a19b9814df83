"""Every code and page that code, tests and documents refer to can be found in the repository."""

from __future__ import annotations

import re

import pytest

from tests.attacks import test_table as attacks
from tests.docs.references import TREES, Repository, anchors
from tests.faults import test_table as faults

ROOT = faults.TESTS.parent
OURS = Repository(ROOT)
trees = pytest.mark.parametrize("tree", TREES)


@pytest.mark.slow
@trees
def test_codes_are_explained(tree):
    assert OURS.unknown_codes(tree) == []


@pytest.mark.parametrize("tree", ["", *TREES])
def test_named_pages_exist(tree):
    assert OURS.missing_pages(tree) == []


def test_anchors_exist():
    assert OURS.dead_anchors() == []


@pytest.mark.parametrize(
    ("page", "table"), [("docs/faults.md", faults), ("docs/attacks.md", attacks)], ids=["faults", "attacks"]
)
def test_tables_name_the_tests(page, table):
    """The page has the rows of the table, and each row names a file with a test that shows it."""
    lines = re.findall(r'^\| <a id="\w+"></a>(\w+) \|.*\| ([^|]+) \|$', (ROOT / page).read_text("utf-8"), re.MULTILINE)
    files = {code: re.findall(r"`([\w/.]+)`", cell) for code, cell in lines}
    assert files.keys() == table.ROWS.keys()
    named = [f"{code}: {file}" for code, each in files.items() for file in each if not (faults.TESTS / file).exists()]
    assert named == []
    assert [code for code, each in files.items() if not _shown(code, each, table)] == []


def _shown(code, files, table):
    letters = code.rstrip("0123456789")
    prefix = f"test_{letters.lower()}{int(code[len(letters) :]):02d}_"
    showing = {file for file, names in faults.known().items() if any(name.startswith(prefix) for name in names)}
    showing |= {place.partition("::")[0] for place in table.ELSEWHERE.get(code, ())}
    return any(shown.startswith(file) for file in files for shown in showing)


# the check itself


def _repository(path, **texts):
    """A small repository: a table with R1 and I1, and the given files (`runner_a_py` is runner/a.py)."""
    (path / "docs").mkdir()
    table = '# Rules\n\n| <a id="r1"></a>R1 | rule |\n| <a id="i1"></a>I1 | rule |\n'
    (path / "docs/invariants.md").write_text(table, encoding="utf-8")
    for name, text in texts.items():
        tree, stem, suffix = name.split("_")
        (path / tree).mkdir(exist_ok=True)
        (path / tree / f"{stem}.{suffix}").write_text(text, encoding="utf-8")
    return Repository(path)


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("x = 1  # a rule (R1)\n", []),
        ("x = 1  # a rule (R2)\n", ["R2"]),
        ('"""What I1, I7 say."""\n', ["I7"]),
        ('def f():\n    """A family nobody knows (ZZ9)."""\n', ["ZZ9"]),
        ('def f():\n    """A file of a kind (MP4), and X9 of no known family."""\n', []),
        ("def test_r03_is_named():\n    pass\n", ["R3"]),
        ('raise ValueError("R5: broken")\n', ["R5"]),
        ('x = "a place on R5"\n', []),
        ('x = "B7"  # a row (R1, R4)\n', ["R4"]),
    ],
)
def test_unknown_codes_are_found(tmp_path, text, codes):
    found = _repository(tmp_path, tests_a_py=text).unknown_codes("tests")
    assert [line.rpartition(" ")[2] for line in found] == codes


def test_codes_count_in_every_kind_of_file(tmp_path):
    repository = _repository(
        tmp_path, runner_q_sql="select 'R8'; -- R6\n", runner_s_yaml="a: R8 # (I9)\n", docs_p_md="R7\n\n```\nR8\n```\n"
    )
    assert repository.unknown_codes("runner") == ["runner/q.sql:1: R6", "runner/s.yaml:1: I9"]
    assert repository.unknown_codes("docs") == ["docs/p.md:1: R7"]


@pytest.mark.parametrize(
    ("text", "pages"),
    [
        ("# see docs/invariants.md\n", []),
        ("# see invariants.md R1\n", []),
        ("# see reliability.md\n", ["reliability.md"]),
        ("# see contracts/kling.md, section 3\n", ["contracts/kling.md"]),
        ("# invariants.md section 4\n", ["4"]),
        ("# https://example.com/a.md\n", []),
    ],
)
def test_missing_pages_are_found(tmp_path, text, pages):
    found = _repository(tmp_path, runner_a_py=text).missing_pages("runner")
    assert [line.rpartition(" ")[2] for line in found] == pages


def test_dead_anchors_are_found(tmp_path):
    page = "# A page\n\n[a](invariants.md#r1) [b](invariants.md#r2) [c](#a-page) [d](#another) [e](gone.md#x)\n"
    found = _repository(tmp_path, docs_p_md=page).dead_anchors()
    assert found == ["docs/p.md: invariants.md#r2", "docs/p.md: #another", "docs/p.md: gone.md#x"]


def test_anchors_are_those_of_github():
    assert anchors("# Exit codes, and `why`\n## A\n## A\n") == {"exit-codes-and-why", "a", "a-1"}
