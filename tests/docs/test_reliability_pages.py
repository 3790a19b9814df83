"""The two pages on reliability say the same: the same sections, tables, lists, links, figures and commands."""

from __future__ import annotations

import re

import pytest

PAGES = ("docs/reliability.md", "docs/reliability.zh-CN.md")
_TABLE = re.compile(r"^\|.*\n\| ---.*\n((?:\|.*\n)+)", re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@pytest.fixture
def pages(document):
    return [document(name) for name in PAGES]


def tables(page) -> list[list[list[str]]]:
    return [
        [[cell.strip() for cell in row.strip("|").split("|")] for row in found[1].splitlines()]
        for found in _TABLE.finditer(page.text)
    ]


def sections(page) -> list[str]:
    return re.split(r"^## ", page.text, flags=re.MULTILINE)


def test_sections_and_lists_are_the_same(pages):
    english, chinese = pages
    assert english.headings == chinese.headings
    for mark in (r"^- ", r"^\d\. "):
        counts = [[len(re.findall(mark, section, re.MULTILINE)) for section in sections(page)] for page in pages]
        assert counts[0] == counts[1], mark


def test_tables_have_the_same_rows_and_columns(pages):
    shapes = [[[len(row) for row in table] for table in tables(page)] for page in pages]
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) >= 4


def test_commands_and_names_in_tables_are_the_same(pages):
    """What a reader copies is not translated."""
    for rows in zip(*([row for table in tables(page) for row in table] for page in pages), strict=True):
        cells = [sorted(_CODE.findall(" ".join(row))) for row in rows]
        assert cells[0] == cells[1]


def test_classes_are_named_as_on_the_screens(pages):
    from runner.providers.guarantee import CLASS_NAMES  # noqa: PLC0415

    for page in pages:
        table = next(table for table in tables(page) if table[0][0].startswith("4 once"))
        names = [re.split(r"[（(]", row[0])[0].strip() for row in table]
        assert names == [f"{level} {name}" for level, name in CLASS_NAMES.items()]


def test_figures_of_the_campaigns_are_the_same(pages):
    """But for the million, which Chinese counts in ten thousands."""
    english, chinese = ({number for number in _NUMBER.findall(sections(page)[-1]) if len(number) > 2} for page in pages)
    assert english - {"1.7"} == chinese - {"170"}


def test_links_lead_to_the_same_places(pages):
    english, chinese = ({link for link in page.links if not link.startswith("#")} for page in pages)
    assert english - {"reliability.zh-CN.md"} == chinese - {"reliability.md"}
    for page in pages:
        titles = [line.lstrip("# ") for line in page.prose.splitlines() if line.startswith("#")]
        anchors = {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}
        assert {link[1:] for link in page.links if link.startswith("#")} <= anchors
