"""What `doctor` finds: one sign for each thing it looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runner.pipeline.outcome import Exit

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Sign:
    """What was looked at, how it is, and what to do next."""

    check: str
    level: Level
    said: str
    cure: str = ""
    #: the exit code of a run that would end by this; only a problem has one
    exit: Exit = Exit.DONE


def ok(check: str, said: str, cure: str = "") -> Sign:
    """Nothing stands in the way."""
    return Sign(check, "ok", said, cure)


def warning(check: str, said: str, cure: str) -> Sign:
    """It may surprise; a run can go well all the same."""
    return Sign(check, "warning", said, cure)


def problem(check: str, said: str, cure: str, exit: Exit = Exit.CONFIGURATION) -> Sign:  # noqa: A002 - the house's word
    """A run would not go well."""
    return Sign(check, "problem", said, cure, exit)
