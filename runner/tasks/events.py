"""Define the closed set of events that can happen to a task, named as past participles where one exists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runner.tasks.models import NO_ERROR, Moment, Output, TaskError

#: cause of a retryable failure; only `trouble` may be the task's own fault
FailureKind = Literal["unsent", "throttled", "window", "trouble", "absent"]
#: cause for which all submits of an account stop
BlockKind = Literal[
    "credentials", "credit", "account", "configuration", "cost", "refusals", "disk", "window", "state", "distrust"
]
#: decision of an operator about a task that is held or in doubt
Resolution = Literal["adopt", "absent", "abandon"]


@dataclass(frozen=True, slots=True)
class Claimed:
    """A submit worker claimed the task. The row says so on disk before a byte leaves."""

    moment: Moment
    #: seconds since the epoch
    at: float


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider accepted the submit and named the task in its answer."""

    remote_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A submit ended without a clear answer."""

    reason: str
    #: accepted under an id that cannot be used, so that only an operator can resolve it and no reconcile can
    hopeless: bool = False
    #: a whole answer said that no more is taken at present, so that the path to the provider works
    is_busy: bool = False
    #: our process ended before the answer, which says nothing about the path to the provider
    process_ended: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A reconcile found the task at the provider."""

    remote_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """A clean reconcile did not find the task."""

    #: True if the reconcile began after the quiet time, and no later event of this run can tell more
    quiet: bool
    #: False if the provider's list cannot prove an absence: it changes, hides or leaves out what it should show
    provable: bool = True
    #: False if only a task that is accepted later can prove the absence
    witnessed: bool = True
    #: False if the absence is believed and not proved, so that its price stays counted
    refundable: bool = True
    #: what the judgement rests on, for people
    why: str = ""


@dataclass(frozen=True, slots=True)
class Suspected:
    """The provider refused the submit with a code that may have left a task all the same: it is looked up first.

    `error` is the refusal: its reason is what the code means, `throttled` for example.
    """

    error: TaskError


@dataclass(frozen=True, slots=True)
class Pending:
    """The provider still works on the task."""

    #: state in the provider's own word
    remote_state: str = ""
    #: the provider claims success but shows no output yet
    settling: bool = False
    #: the spec does not know the provider's word for the state
    unknown_state: bool = False
    #: trace id that the provider's support asks for
    trace: str = ""
    #: seconds for which an unknown word was all that came, if that is longer than such tasks take; else 0.0
    overdue: float = 0.0


@dataclass(frozen=True, slots=True)
class Finished:
    """The provider shows outputs. The task may have been reported as failed, or have timed out, before."""

    outputs: tuple[Output, ...]


@dataclass(frozen=True, slots=True)
class LinkExpired:
    """A download link no longer works. The next poll fetches a new one."""

    error: TaskError
    #: the link itself is of no use; False: its host did not serve it, and may do so later
    is_dead: bool = True


@dataclass(frozen=True, slots=True)
class Saved:
    """Every output is a complete, checked file."""

    outputs: tuple[Output, ...]
    #: set if there are fewer outputs than were ordered
    error: TaskError = NO_ERROR


@dataclass(frozen=True, slots=True)
class RetryableFailure:
    """An attempt failed, certainly without being paid for. The task is tried again later."""

    kind: FailureKind
    error: TaskError
    #: seconds that the server asked to wait, already within bounds
    wait: float | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """The provider rejects the task and will not make it."""

    error: TaskError
    #: the rejection may mean that an earlier submit with the same reference was accepted
    maybe_taken: bool = False
    #: a task that was accepted costs its price although it has no output
    billed: bool = True


@dataclass(frozen=True, slots=True)
class AccountBlocked:
    """The provider accepts nothing from this account at present."""

    kind: BlockKind
    error: TaskError


@dataclass(frozen=True, slots=True)
class Linked:
    """Another job of the account has bought the same. Its outputs are this task's as well, and nothing is paid."""

    remote_id: str
    #: directory of the job that paid
    bought_in: str
    #: complete, checked files in this job's directory; empty: the other job's are gone, and they are fetched by the id
    outputs: tuple[Output, ...] = ()
    #: set if there are fewer outputs than were ordered
    error: TaskError = NO_ERROR


@dataclass(frozen=True, slots=True)
class Retried:
    """The user asked for another try, or a run takes up what was not served."""

    #: buy a task that was linked to another job's purchase
    anew: bool = False
    #: of a run, which must not work long on links that are dead every night: the first dead one ends the try
    is_brief: bool = False


@dataclass(frozen=True, slots=True)
class Resolved:
    """An operator decided about a task that is held or in doubt. `remote_id` belongs to the decision `adopt`."""

    resolution: Resolution
    #: name of the operator
    by: str
    remote_id: str | None = None


Event = (
    Claimed
    | Accepted
    | Interrupted
    | Found
    | Missing
    | Suspected
    | Pending
    | Finished
    | LinkExpired
    | Saved
    | RetryableFailure
    | Rejected
    | AccountBlocked
    | Linked
    | Retried
    | Resolved
)
