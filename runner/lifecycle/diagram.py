"""Draws the table of transitions, so that the picture in the documentation cannot drift from the rules."""

from __future__ import annotations

import sys

from runner.lifecycle.task import State
from runner.lifecycle.transitions import COUNTED, TRANSITIONS

_NEEDS = {
    State.QUEUED: "a submit",
    State.SUBMITTING: "an answer: its request is on the wire",
    State.IN_DOUBT: "a look-up: it may have been paid for",
    State.HELD: "a person: it may have been paid for, and no look-up can tell",
    State.RUNNING: "a poll",
    State.READY: "a download",
    State.DONE: "nothing: its files are here",
    State.FAILED: "nothing to show for it; to retry is to pay anew",
    State.STRANDED: "paid for but out of reach; to retry is free",
}


def page() -> str:
    """The whole of `docs/lifecycle.md`."""
    arrows = [
        f"    {state} --> {target}: {event.__name__}"
        for state, ways in TRANSITIONS.items()
        for event, targets in ways.items()
        for target in targets
    ]
    needs = [f"| `{state}` | {_NEEDS[state]} |" for state in State]
    costs = [f"| {event.__name__} | {cost} |" for event, cost in COUNTED.items()]
    return "\n".join(
        [
            "# The life of a task",
            "",
            "Drawn from `runner/lifecycle/transitions.py` by `make docs`; a test keeps it so.",
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
            "Every circle costs patience:",
            "",
            "| event | costs |",
            "| --- | --- |",
            *costs,
            "",
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(page())
