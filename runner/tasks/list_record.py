"""Facts about a provider's list, measured on own tasks: which tasks it must show, and how late it may be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.tasks.models import Moment

#: own tasks on which the lag must have been measured before it counts as known
_LAG_SAMPLES = 3
#: seconds that a submit takes at most, where only its answer's time is known
LONGEST_SUBMIT = 120.0
#: own tasks that a list must hold before submits go out side by side
FEWEST_WITNESSES = 2


@dataclass(frozen=True, slots=True)
class Witness:
    """An accepted task of this account whose id came in the answer to its own submit.

    `claimed_at` and `answered_at` enclose its acceptance, in seconds since the epoch. `answered` is the latter on the
    boot clock. Without a `key` it belongs to another job of the account.
    """

    remote_id: str
    ref: str
    model: str
    claimed_at: float
    answered_at: float
    answered: Moment
    key: str = ""
    #: this process saw the answer, so that both times are exact
    exact: bool = False
    #: its id was found, or given by a person, after its submit
    adopted: bool = False
    #: digest of what a list without references recognises it by; empty if unknown
    proof: str = ""

    @property
    def claimed_seconds(self) -> float:
        """Return the earliest time of its acceptance on the boot clock of `answered`."""
        return self.answered.seconds - (self.answered_at - self.claimed_at if self.exact else LONGEST_SUBMIT)

    def is_before(self, sent_at: float) -> bool:
        """Return True if it was certainly accepted before a request that was sent at this time."""
        return self.answered_at < sent_at


@dataclass(slots=True)
class Lag:
    """How long own tasks take from the answer to their submit until the list shows them, in seconds."""

    #: tasks whose lag was measured
    samples: int = 0
    #: longest time that one of them took at most, or that one is missing already
    longest: float = 0.0

    @property
    def known(self) -> bool:
        """Return True if it was measured on enough own tasks."""
        return self.samples >= _LAG_SAMPLES


@dataclass(frozen=True, slots=True)
class EarlierRows:
    """What stood in a list before a job can have sent anything that is unknown now: none of it is the job's.

    It is read before the job's first submit. Later starts add only what they can explain: rows like no task that waits
    to be bought, and rows from before the last send that the state remembers. Else a state that was put back from a
    copy would take its own forgotten purchases for those of others, and buy them again.
    """

    #: ids of rows that no job of the account had claimed
    ids: frozenset[str]
    #: no task whose answer is unknown was sent before this time, seconds since the epoch by the provider's clock
    since: float
    #: seconds by which the provider's clock was ahead of ours
    ahead: float = 0.0


@dataclass(frozen=True, slots=True)
class ListRecord:
    """Everything that an account's jobs know of one list."""

    #: own tasks that it must show, in the order of their answers
    witnesses: tuple[Witness, ...] = ()
    lag: Lag = field(default_factory=Lag)
    #: most rows that a reading has shown at once
    capacity: int = 0
    #: whether the list gives back a request field unchanged, by model and field
    echo: Mapping[tuple[str, str], bool] = field(default_factory=dict)
    #: when a task was last seen that no job of the account explains, seconds since the epoch; 0.0: never
    stranger_at: float = 0.0
