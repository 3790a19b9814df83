"""What is known of a provider's behaviour towards one account: measured, declared by a person, or contradicted.

A provider's spec claims; a fact was seen. docs/reliability.md says which promise rests on which fact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

_DAY = 86_400.0
#: seconds for which a measured fact counts, by its name; a contradiction counts until somebody clears it
_VALID: Mapping[str, float] = {
    "unknown_reference": 7 * _DAY,
    "lag": 7 * _DAY,
    "capacity": 90 * _DAY,
    "doubles": 90 * _DAY,
    "stranger": _DAY,
}
_VALID_OTHERWISE = 30 * _DAY
#: contradicted facts of one provider within so many seconds after which nothing more is bought there
MOST_CONTRADICTIONS, CONTRADICTION_TIME = 3, _DAY
#: the stronger state wins where two sources differ
_STRENGTH = {"measured": 0, "declared": 1, "contradicted": 2}


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact about an operation of an account. What nothing is known of has no fact.

    Times are in seconds since the epoch. `why` is for people and holds no prompt, at most three remote ids.
    """

    #: what was measured, `reference_in_list` for example
    name: str
    state: Literal["measured", "declared", "contradicted"]
    #: operation and model that it holds for; empty: all
    operation: str = ""
    model: str = ""
    #: the code of a refusal or the field of a request that it is about
    subject: str = ""
    value: str = ""
    #: times that it was seen in this state
    n: int = 1
    first_at: float = 0.0
    last_at: float = 0.0
    why: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Return what tells it from other facts of the same list."""
        return self.name, self.operation, self.model, self.subject

    def is_valid(self, now: float) -> bool:
        """Return True if it still counts. A contradiction does until it is cleared, also a person's word."""
        return self.state != "measured" or now - self.last_at < _VALID.get(self.name, _VALID_OTHERWISE)


def merge_facts(known: Fact, new: Fact) -> Fact:
    """Return the fact after both were seen: a contradiction wins over a declaration, this over measurements.

    The same state seen twice adds up, with the newer value and reason. A measurement that has expired is replaced.
    """
    if not known.is_valid(new.last_at):
        return new
    if known.state != new.state:
        return max(known, new, key=lambda each: _STRENGTH[each.state])
    newer = max(known, new, key=lambda each: each.last_at)
    return replace(newer, n=known.n + new.n, first_at=min(known.first_at, new.first_at))
