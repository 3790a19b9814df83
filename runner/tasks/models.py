"""Define the records of the domain: a draft is an expanded item, a task is its row, an output is one of its files."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


#: prefix of `Task.reason` while a refusal is looked up that may have left a task
SUSPECTED = "refused, and looked up: "

#: `Task.error.reason` of a running task while the provider's word for its state is one that the spec does not list
UNLISTED_STATE = "unlisted_state"


class State(StrEnum):
    """State of a task, named after the step that comes next. The values are stored and part of the interface."""

    QUEUED = "queued"
    """waits for its submit"""
    SUBMITTING = "submitting"
    """waits for an answer: its paid request is on the wire"""
    IN_DOUBT = "in_doubt"
    """waits for a reconcile: the request may have been paid for"""
    HELD = "held"
    """waits for an operator: it may have been paid for, and no reconcile can tell"""
    RUNNING = "running"
    """waits for a poll"""
    READY = "ready"
    """waits for its downloads"""
    DONE = "done"
    """finished: its files are in the job directory"""
    FAILED = "failed"
    """finished without outputs; a retry is a new purchase"""
    STRANDED = "stranded"
    """paid for but not retrievable; a retry is free"""


@dataclass(frozen=True, slots=True)
class Draft:
    """One expanded item of a manifest, before it has a row."""

    #: content hash of provider, operation, model, request and repeat (32 hex digits)
    key: str
    #: position in the manifest, from 1
    index: int
    #: number of this repeat, from 1
    repeat: int
    #: variables that the templates were rendered with
    vars: Mapping[str, Any]
    provider: str
    #: endpoint of the provider, e.g. `image` or `text2video`
    operation: str
    model: str
    #: parameters under the provider's own names
    request: Mapping[str, Any]
    #: file name without extension, already sanitized
    name: str
    #: slots of the account's window that it takes while it runs
    slots: int = 1
    #: hash of what the manifest asks for, however it is written (32 hex digits); empty: not known
    goods: str = ""
    #: goods under which earlier versions, which wrote `1.10` as 1.1, have bought the same; empty: those above
    goods_before: str = ""


@dataclass(frozen=True, slots=True)
class MergedRow:
    """Row of a table whose task is that of an earlier row."""

    #: position of that task in the manifest, from 1
    index: int
    #: variables of the row
    vars: Mapping[str, Any]
    #: file name without extension that the row would have given the task; empty: it names none by itself
    name: str


@dataclass(frozen=True, slots=True)
class Moment:
    """Time at which a request left, on a clock that cannot be set: seconds since a boot, and the boot's id."""

    boot: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Output:
    """One result of a task: at first a link, later a file."""

    #: position among the task's outputs, from 1
    number: int
    url: str
    #: path relative to the job directory; None until the bytes are complete and checked
    file: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class TaskError:
    """Reason why a task did not succeed, for users and for results. All fields are None if nothing went wrong."""

    reason: str | None = None
    code: str | None = None
    message: str | None = None


#: absence of an error
NO_ERROR = TaskError()


@dataclass(frozen=True, slots=True)
class Task:
    """One row of the store: one paid request to one provider."""

    id: int
    key: str
    provider: str
    operation: str
    model: str
    state: State
    #: time at which its stage claims it, seconds since the epoch; None: no stage claims it
    due_at: float | None
    #: number of the deliberate purchase, from 1
    generation: int = 1
    #: reference sent with the request, by which the provider can find the task again
    ref: str = ""
    #: hash of what the manifest asks for, however it is written (32 hex digits); empty: not known
    goods: str = ""
    #: hash of the request fields that the provider's list echoes; duplicates share it
    fingerprint: str = ""
    slots: int = 1
    #: price of one purchase in the provider's unit; None: unknown
    cost: float | None = None
    #: upper bound of the price of all its purchases; a purchase that is in doubt or held counts as spent
    spent: float = 0.0
    remote_id: str | None = None
    #: submits that the provider rejected and that count against the retry policy
    attempts: int = 0
    #: submits that were certainly not accepted and cost nothing
    throttles: int = 0
    #: submits of this generation whose outcome was unclear
    doubts: int = 0
    #: clean reconciles since the doubt began that did not find the task
    absences: int = 0
    #: failures in a row
    failures: int = 0
    #: links that expired before their file was complete
    refreshes: int = 0
    #: True if the remote id came from a reconcile and not from the answer to its submit
    adopted: bool = False
    sent: Moment | None = None
    submitted_at: float | None = None
    #: start of the time limit for paid tasks, seconds since the epoch
    since: float | None = None
    finished_at: float | None = None
    error: TaskError = NO_ERROR
    #: basis of the current state, one line
    reason: str = ""
    #: request as JSON, present where its stage needs it
    request: bytes = b""
    #: field of every local image in the request and the path of its file, as JSON; empty: no local images
    images: str = ""
    name: str = ""
    outputs: tuple[Output, ...] = ()

    @property
    def is_suspect(self) -> bool:
        """Return True if it was refused and waits until it is known that the refusal has left no task."""
        return self.state is State.IN_DOUBT and self.reason.startswith(SUSPECTED)


def reference(job: str, key: str, generation: int) -> str:
    """Return the reference that a provider is given for one purchase of a task.

    It is unique over jobs and accounts, safe in a URL, never purely numeric, and holds no part of the prompt.
    """
    return f"r{job[:10]}-{key[:20]}-g{generation}"


def key_of_reference(job: str, ref: str) -> str | None:
    """Return the first 20 digits of the key that a reference names, or None if it is not one of this job's."""
    prefix, _, rest = ref.partition("-")
    key, mark, generation = rest.rpartition("-g")
    is_ours = prefix == f"r{job[:10]}" and mark and generation.isdecimal() and len(key) == 20  # noqa: PLR2004 - as above
    return key if is_ours and set(key) <= set("0123456789abcdef") else None
