"""An edit of a finished job that nobody sees buys nothing; one that asks for something else does."""

from __future__ import annotations

import json
import unicodedata

import pytest

from .conftest import sandbox

FAST = ("--seconds", "0.1,0.2")
MANIFEST = """\
version: 1
provider: chanjing
model: kling-v2-1
params: {prompt: "{{ subject }}", aspect_ratio: "1:1"}
items: {file: rows.csv}
limits: {qps: 50}
"""
#: a cell of several lines, composed letters, and plain text
CELLS = ("a café\nby the sea", "Ångström’s heron", "江南水乡的乌篷船", "two boats")


def table(cells, *, encoding: str = "utf-8", end: str = "\n") -> bytes:
    lines = ["subject", *(f'"{cell}"' for cell in cells)]
    return "".join(f"{line}\n" for line in lines).replace("\n", end).encode(encoding)


HARMLESS = {
    "CRLF": table(CELLS, end="\r\n"),
    "CR in cells": table([cell.replace("\n", "\r") for cell in CELLS]),
    "NFD": table([unicodedata.normalize("NFD", cell) for cell in CELLS]),
    "BOM": table(CELLS, encoding="utf-8-sig"),
    "BOM in a cell": table([f"\ufeff{cell}" for cell in CELLS]),
    "blanks": table([f" {cell} ".replace("\n", " \t\n") for cell in CELLS]),
    "another order": table(reversed(CELLS)),
}


@pytest.fixture
def finished(desk):
    """Run a job of four tasks to its end in a sandbox, and return the sandbox."""
    desk.write("job.yaml", MANIFEST)
    (desk.root / "rows.csv").write_bytes(table(CELLS))
    with sandbox(*FAST) as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"done": 4}
        yield box


@pytest.mark.slow
def test_harmless_edits_buy_nothing(desk, finished):
    first = {row["key"]: row for row in desk.results()}
    for name, content in HARMLESS.items():
        (desk.root / "rows.csv").write_bytes(content)
        summary = desk.job()
        assert (summary["counts"], summary["submitted"]) == ({"done": 4}, 0), name
        rows = {row["key"]: row for row in desk.results()}
        assert {key: row["outputs"] for key, row in rows.items()} == {key: row["outputs"] for key, row in first.items()}
        assert sorted(row["index"] for row in rows.values()) == [1, 2, 3, 4], name
    assert len(finished.accepted) == 4


@pytest.mark.slow
def test_text_of_a_new_task_is_sent_as_it_is_written(desk, finished):
    (desk.root / "rows.csv").write_bytes(table([f"{cell} " for cell in CELLS] + [" a new row \r\nof two lines "]))
    assert desk.job()["submitted"] == 1
    assert finished.accepted[-1]["request"]["ref_prompt"] == " a new row \r\nof two lines "


@pytest.mark.slow
def test_real_edits_are_bought(desk, finished):
    edits = [CELLS[0].upper(), CELLS[1].replace("’", "'"), CELLS[2] + "。", "two  boats"]
    (desk.root / "rows.csv").write_bytes(table(edits))
    assert desk.job()["submitted"] == 4
    assert len(finished.accepted) == 8


@pytest.mark.slow
def test_recovered_state_knows_what_was_bought(desk, finished):
    (desk.root / "rows.csv").write_bytes(HARMLESS["blanks"])
    assert json.loads(desk.run("recover", "job.yaml", "--json").stdout)
    assert desk.job()["submitted"] == 0
    assert len(finished.accepted) == 4
