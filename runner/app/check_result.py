"""The result of one check of `doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runner.scheduler.outcome import Exit

CheckLevel = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Result of one check, with a hint what to do next."""

    check: str
    level: CheckLevel
    message: str
    hint: str = ""
    #: exit code of a run that would end by this problem; only problems have one
    exit_code: Exit = Exit.DONE


def ok(check: str, message: str, hint: str = "") -> CheckResult:
    """Return the result of a check that found nothing wrong."""
    return CheckResult(check, "ok", message, hint)


def warning(check: str, message: str, hint: str) -> CheckResult:
    """Return the result of a check that found something unusual with which a run can still succeed."""
    return CheckResult(check, "warning", message, hint)


def problem(check: str, message: str, hint: str, exit_code: Exit = Exit.CONFIGURATION) -> CheckResult:
    """Return the result of a check that found what would make a run fail."""
    return CheckResult(check, "problem", message, hint, exit_code)
