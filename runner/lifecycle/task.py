"""The nouns of the house: a draft is an expanded item, a task is its row, an output is one of its files."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class State(StrEnum):
    """What a task needs next."""

    QUEUED = "queued"
    """a submit"""
    SUBMITTING = "submitting"
    """an answer: its request is on the wire"""
    IN_DOUBT = "in_doubt"
    """a look-up: it may have been paid for"""
    HELD = "held"
    """a person: it may have been paid for and no look-up can tell"""
    RUNNING = "running"
    """a poll"""
    READY = "ready"
    """a download"""
    DONE = "done"
    """nothing: its files are here"""
    FAILED = "failed"
    """nothing to show for it; to retry is to pay anew"""
    STRANDED = "stranded"
    """paid for but out of reach; to retry is free"""


@dataclass(frozen=True, slots=True)
class Draft:
    """One expanded item of a manifest, before it has a row."""

    #: content hash of provider, operation, model, request and repeat (32 hex digits)
    key: str
    #: position in the manifest, from 1
    index: int
    #: which of its repeats, from 1
    repeat: int
    #: the variables it was made from
    vars: Mapping[str, Any]
    provider: str
    #: which of the provider's endpoints makes it, e.g. `image` or `text2video`
    operation: str
    model: str
    #: the parameters in the provider's own names
    request: Mapping[str, Any]
    #: file name without extension, already safe
    name: str
    #: how much of the account's window it takes while it runs
    slots: int = 1


@dataclass(frozen=True, slots=True)
class Moment:
    """When a request left, on a clock that no one can set: seconds since a boot, and which boot."""

    boot: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Output:
    """One result of a task: first a link, then a file."""

    #: from 1
    number: int
    url: str
    #: relative to the job directory; None until the bytes are complete and checked
    file: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Why something did not work, for people and for results (all None: nothing went wrong)."""

    reason: str | None = None
    code: str | None = None
    message: str | None = None


#: nothing went wrong
NO_FAULT = Fault()


@dataclass(frozen=True, slots=True)
class Task:
    """A row: one paid request to one provider."""

    id: int
    key: str
    provider: str
    operation: str
    model: str
    state: State
    #: when its stage should take it next, seconds since the epoch; None: not by itself
    due_at: float | None
    #: one deliberate purchase each
    generation: int = 1
    #: what the provider is told so that it can know the task again
    ref: str = ""
    #: hash of what the provider's list echoes of the request; twins share it
    fingerprint: str = ""
    slots: int = 1
    #: what one purchase of it costs, in the provider's unit; None: nobody knows
    cost: float | None = None
    #: what all its purchases have cost at the most: what is in doubt or held counts as spent (reliability.md I20)
    spent: float = 0.0
    remote_id: str | None = None
    #: counted refusals to accept it
    attempts: int = 0
    #: submits that were certainly not accepted and cost nothing
    throttles: int = 0
    #: sends of this generation whose outcome was unclear
    doubts: int = 0
    #: clean look-ups that did not find it since the doubt began
    looks: int = 0
    #: setbacks in a row
    failures: int = 0
    #: links that died before their file was whole
    refreshes: int = 0
    #: its id came from a look-up, not from its own answer
    adopted: bool = False
    sent: Moment | None = None
    submitted_at: float | None = None
    #: since when its patience runs
    since: float | None = None
    finished_at: float | None = None
    fault: Fault = NO_FAULT
    #: in one line, what its state rests on
    evidence: str = ""
    #: what to send, as JSON, where its stage needs it
    request: bytes = b""
    #: where local pictures stand in the request, and the path of each, as JSON; empty: there are none
    pictures: str = ""
    name: str = ""
    outputs: tuple[Output, ...] = ()


def reference(job: str, key: str, generation: int) -> str:
    """What the provider is told: unique over jobs and accounts, URL-safe, never purely numeric, no prompt in it."""
    return f"r{job[:10]}-{key[:20]}-g{generation}"
