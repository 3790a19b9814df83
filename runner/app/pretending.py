"""Recognition of sandbox jobs by the ledger that the sandbox keeps in their state directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def ledger(state: Path) -> Path:
    """Return the file in which a job's sandbox records the tasks that it accepts."""
    return state / "sandbox.jsonl"


def pretends(state: Path) -> bool:
    """Return True if the sandbox has ever served this job, so that nothing in it was paid."""
    return ledger(state).exists()
