"""Whether a job is one of `--sandbox`, where nothing is paid: its pretend providers keep a ledger in its state."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def ledger(state: Path) -> Path:
    """Where the pretend providers of a job write what they accept."""
    return state / "sandbox.jsonl"


def pretends(state: Path) -> bool:
    """Whether they ever served this job."""
    return ledger(state).exists()
