"""The result of one check of `doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runner.pipeline.outcome import Exit

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Sign:
    """Result of one check, with a hint what to do next."""

    check: str
    level: Level
    said: str
    cure: str = ""
    #: exit code of a run that would end by this problem; only problems have one
    exit: Exit = Exit.DONE


def ok(check: str, message: str, hint: str = "") -> Sign:
    """Return the result of a check that found nothing wrong."""
    return Sign(check, "ok", message, hint)


def warning(check: str, message: str, hint: str) -> Sign:
    """Return the result of a check that found something unusual with which a run can still succeed."""
    return Sign(check, "warning", message, hint)


def problem(check: str, message: str, hint: str, exit_code: Exit = Exit.CONFIGURATION) -> Sign:
    """Return the result of a check that found what would make a run fail."""
    return Sign(check, "problem", message, hint, exit_code)
