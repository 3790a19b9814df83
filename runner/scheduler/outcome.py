"""How a run ended, and the exit code that reports it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from runner.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Exit(IntEnum):
    """The promised exit codes. They are never renumbered."""

    DONE = 0
    BUG = 1
    USAGE = 2
    FAILED = 3
    HELD = 4
    RESUMABLE = 5
    CREDIT = 6
    CONFIGURATION = 7
    COST = 8
    NO_JOB = 10
    LOCKED = 11
    CREDENTIALS = 12
    STATE = 13
    DISK = 14
    HUP = 129
    INT = 130
    TERM = 143


#: exit codes by weight: where several reasons hold, the first of these counts
PRECEDENCE = (
    Exit.STATE,
    Exit.DISK,
    Exit.HELD,
    Exit.BUG,
    Exit.CREDENTIALS,
    Exit.CONFIGURATION,
    Exit.CREDIT,
    Exit.COST,
    Exit.HUP,
    Exit.INT,
    Exit.TERM,
    Exit.RESUMABLE,
    Exit.FAILED,
)

MEANING = {
    Exit.DONE: "everything is done",
    Exit.BUG: "internal error: a bug",
    Exit.USAGE: "usage or manifest invalid; nothing was sent",
    Exit.FAILED: "finished; some tasks failed or could not be fetched",
    Exit.HELD: "possibly paid: tasks are held; a person must decide",
    Exit.RESUMABLE: "stopped early and resumable; run the same command again",
    Exit.CREDIT: "out of credit at the provider",
    Exit.CONFIGURATION: "configuration, TLS or permission",
    Exit.COST: "max_cost reached",
    Exit.NO_JOB: "no such job",
    Exit.LOCKED: "locked by another run",
    Exit.CREDENTIALS: "credentials wrong or expired",
    Exit.STATE: "state corrupt, mismatched or of a newer version",
    Exit.DISK: "disk full or I/O error",
    Exit.HUP: "ended by HUP; consistent and resumable",
    Exit.INT: "ended by INT; consistent and resumable",
    Exit.TERM: "ended by TERM; consistent and resumable",
}


@dataclass(frozen=True, slots=True)
class Ending:
    """One reason that holds at the end of a run."""

    exit: Exit
    why: str


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """Every reason that holds at the end of a run. The weightiest gives the exit code."""

    endings: tuple[Ending, ...]

    @property
    def exit(self) -> Exit:
        """Return the exit code. Without any reason it is a success."""
        return min((ending.exit for ending in self.endings), key=_rank, default=Exit.DONE)


def _rank(code: Exit) -> int:
    return PRECEDENCE.index(code) if code in PRECEDENCE else -1


def files_text(files: Sequence[Mapping[str, Any]]) -> str:
    """Return why files that are paid for have not come, such as `3 wait for files: HTTP 503`; empty if none waits."""
    parts = []
    for each in files:
        verb = "waits for its file" if each["count"] == 1 else "wait for files"
        parts.append(f"{each['count']} {verb}: {sanitize(each['message'] or each['reason'], 120)}")
    return "; ".join(parts)


def unlisted_text(words: Sequence[Mapping[str, Any]]) -> str:
    """Return which state words no spec lists, such as `2 have the state 'canceled', …`; empty if there are none."""
    parts = []
    for each in words:
        word = f"the state {sanitize(each['word'], 60)!r}" if each["word"] else "no state"
        parts.append(f"{each['count']} {'has' if each['count'] == 1 else 'have'} {word}")
    return f"{', '.join(parts)}, which the spec does not list" if parts else ""


def run_outcome(endings: Iterable[Ending]) -> RunOutcome:
    """Return the reasons in order of weight, each exit code once with its first reason."""
    first: dict[Exit, Ending] = {}
    for ending in endings:
        first.setdefault(ending.exit, ending)
    return RunOutcome(tuple(sorted(first.values(), key=lambda ending: _rank(ending.exit))))
