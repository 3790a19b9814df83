from __future__ import annotations

from pathlib import Path

from runner.lifecycle.diagram import page
from runner.lifecycle.task import State
from runner.lifecycle.transitions import COUNTED, TRANSITIONS

PAGE = Path(__file__).parents[2] / "docs" / "lifecycle.md"


def test_the_page_is_drawn_from_the_table():
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"


def test_nothing_of_the_table_is_left_out():
    drawn = page()
    for state, ways in TRANSITIONS.items():
        for event, targets in ways.items():
            for target in targets:
                assert f"    {state} --> {target}: {event.__name__}\n" in drawn
    assert all(f"| `{state}` |" in drawn for state in State)
    assert all(f"| {event.__name__} |" in drawn for event in COUNTED)
