"""Purchases that rest on what was contradicted afterwards: they may have been paid for twice.

A task was bought once more because a list did not show it, or a refusal was believed; within a day something turned up
against that list, or against that refusal. The provider's own list may not tell, since it is what was contradicted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.store.store import Store
    from runner.tasks.fact import Fact

#: seconds before it was contradicted in which a fact may have decided wrongly
_DAY = 86_400.0
#: purchases that are listed for each fact
_MOST = 100


@dataclass(frozen=True, slots=True)
class ContradictedPurchase:
    """One purchase that rests on a contradicted fact."""

    provider: str
    key: str
    name: str
    #: None: it failed, refused
    remote_id: str | None
    #: when it was sent last, seconds since the epoch
    at: float
    why: str


async def find_contradicted(
    store: Store, provider: str, operations: Sequence[str], facts: Sequence[Fact]
) -> list[ContradictedPurchase]:
    """Return the latest purchases of one list, each once, that rest on facts which are contradicted now."""
    found: dict[str, ContradictedPurchase] = {}
    for fact in facts:
        if fact.state != "contradicted":
            continue
        span = (fact.first_at - _DAY, fact.last_at)
        if fact.name == "refusal":
            code = fact.subject.partition(" ")[0]
            rows = await store.bought_after_refusal(provider, fact.operation, code, span, _MOST)
            why = f"refused before; {code} was answered to a submit that made a task"
        else:
            rows = await store.bought_again(provider, operations, fact.model, span, _MOST)
            why = f"bought once more because the list did not show it; {fact.why}"
        for key, name, remote_id, at in rows:
            found.setdefault(key, ContradictedPurchase(provider, key, name, remote_id, at, why))
    return sorted(found.values(), key=lambda each: -each.at)[:_MOST]
