from __future__ import annotations

from pathlib import Path

from runner.lifecycle.diagram import page
from runner.lifecycle.task import State
from runner.lifecycle.transitions import COUNTED, TRANSITIONS

PAGE = Path(__file__).parents[2] / "docs" / "lifecycle.md"


def test_page_is_generated_from_the_table():
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"


def test_page_shows_the_whole_table():
    text = page()
    for state, events in TRANSITIONS.items():
        for event, targets in events.items():
            for target in targets:
                assert f"    {state} --> {target}: {event.__name__}\n" in text
    assert all(f"| `{state}` |" in text for state in State)
    assert all(f"| {event.__name__} |" in text for event in COUNTED)
