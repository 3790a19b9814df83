"""Render the table of transitions as a page, so that the diagram in the documentation cannot drift from the rules."""

from __future__ import annotations

import sys

from runner.lifecycle.task import State
from runner.lifecycle.transitions import COUNTED, TRANSITIONS

_NEEDS = {
    State.QUEUED: "a submit",
    State.SUBMITTING: "an answer: its request is on the wire",
    State.IN_DOUBT: "a reconcile: it may have been paid for",
    State.HELD: "an operator: it may have been paid for, and no reconcile can tell",
    State.RUNNING: "a poll",
    State.READY: "a download",
    State.DONE: "nothing: its files are in the job directory",
    State.FAILED: "nothing: it has no outputs, and a retry is a new purchase",
    State.STRANDED: "nothing: it is paid for but not retrievable, and a retry is free",
}


def page() -> str:
    """Return the whole text of `docs/lifecycle.md`."""
    arrows = [
        f"    {state} --> {target}: {event.__name__}"
        for state, events in TRANSITIONS.items()
        for event, targets in events.items()
        for target in targets
    ]
    needs = [f"| `{state}` | {_NEEDS[state]} |" for state in State]
    costs = [f"| {event.__name__} | {cost} |" for event, cost in COUNTED.items()]
    return "\n".join(
        [
            "# The life of a task",
            "",
            "Generated from `runner/tasks/transitions.py` by `make docs`; a test keeps it up to date.",
            "",
            "```mermaid",
            "stateDiagram-v2",
            "    [*] --> queued",
            *arrows,
            "    done --> [*]",
            "```",
            "",
            "| state | needs |",
            "| --- | --- |",
            *needs,
            "",
            "Every cycle of the diagram uses up some of the retry policy:",
            "",
            "| event | costs |",
            "| --- | --- |",
            *costs,
            "",
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(page())
