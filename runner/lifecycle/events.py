"""The closed set of things that can happen to a task, as past participles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runner.lifecycle.task import NO_FAULT, Fault, Moment, Output

#: why a setback is not the task's own fault, or that it may be
SetbackKind = Literal["unsent", "throttled", "window", "trouble", "absent"]
#: what a stop of submits is about
BlockKind = Literal["credentials", "credit", "account", "configuration", "cost", "refusals", "disk", "window"]
#: what a person may decide about a held task
Verdict = Literal["adopt", "absent", "abandon"]


@dataclass(frozen=True, slots=True)
class Claimed:
    """A submit took it; the row says so on disk before a byte leaves."""

    moment: Moment
    at: float


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider's own answer named it."""

    remote_id: str
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A submit ended without a clear answer."""

    evidence: str
    #: it was accepted under an id that cannot be used: no look-up can help, only a person
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A look-up found it at the provider."""

    remote_id: str
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """A clean look-up did not find it; `quiet` says that the look began after the quiet time."""

    quiet: bool
    #: the look-up could have found it: where the list does not echo what identifies a task, only a person can tell
    provable: bool = True


@dataclass(frozen=True, slots=True)
class Pending:
    """The provider is still at work; `settling` says it claims success but shows no output yet."""

    word: str = ""
    settling: bool = False
    #: nobody knows this word for a state
    strange: bool = False
    #: what the provider's support will ask for
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """The provider shows its outputs; perhaps those of a task that it had called failed, or that was given up."""

    outputs: tuple[Output, ...]


@dataclass(frozen=True, slots=True)
class LinkExpired:
    """A link led nowhere; a poll fetches a fresh one."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class Saved:
    """Every output is a checked file."""

    outputs: tuple[Output, ...]
    #: set when there are fewer than were ordered
    fault: Fault = NO_FAULT


@dataclass(frozen=True, slots=True)
class Setback:
    """It did not work this time, certainly without being paid for; again later."""

    kind: SetbackKind
    fault: Fault
    #: seconds the other side asked for, already within bounds
    wait: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider will not make it."""

    fault: Fault
    #: the refusal may mean that an earlier send of the same reference was accepted
    maybe_taken: bool = False
    #: a task that was accepted costs its price although nothing came of it
    billed: bool = True


@dataclass(frozen=True, slots=True)
class Blocked:
    """The provider takes nothing from this account now."""

    kind: BlockKind
    fault: Fault


@dataclass(frozen=True, slots=True)
class Retried:
    """A person asked for it again."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A person decided about a held task; `remote_id` belongs to `adopt`."""

    verdict: Verdict
    by: str
    remote_id: str | None = None


Event = (
    Claimed
    | Accepted
    | Interrupted
    | Found
    | Missing
    | Pending
    | Finished
    | LinkExpired
    | Saved
    | Setback
    | Refused
    | Blocked
    | Retried
    | Resolved
)
