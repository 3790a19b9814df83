"""How long to wait and how often to try: every circle in the table of transitions costs some of this."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """The bounds of one provider's tasks; times in seconds."""

    #: counted refusals of a submit before the task has failed
    attempts: int = 4
    #: refusals that are the account's doing (too fast, no network) before even they are too many
    throttles: int = 1000
    #: how long what is paid is polled and fetched for
    paid: float = 172_800.0
    #: quiet time before an absence is believed (reliability.md section 9)
    doubt: float = 120.0
    #: whether the provider can be asked about a send without an answer (class C1 to C3)
    can_look_up: bool = True
    #: clean look-ups that must agree, the last of them begun after the quiet time
    looks: int = 2
    #: doubtful sends of one generation before a person must decide
    sends: int = 3
    #: purchases of one task before even a person's word is not enough (FM5)
    generations: int = 20
    #: unclean look-ups in a row before the next run has to look
    unclean: int = 10
    #: answers that leave out an id which a person gave, before that person must look again
    unknown: int = 4
    #: polls that say "success" and show nothing before the output counts as lost
    settlings: int = 20
    #: dead links before the outputs count as lost
    refreshes: int = 8
    #: seconds from acceptance to the first poll
    first_look: float = 2.0


def backoff(failures: int, *, base: float = 1.0, cap: float = 60.0) -> float:
    """Seconds to wait after this many setbacks in a row: doubling from `base`, never above `cap`."""
    return min(cap, base * 2.0 ** min(failures - 1, 30)) if failures > 0 else 0.0


def look_gap(patience: Patience) -> float:
    """Seconds between two look-ups of one doubt: a quarter of the quiet time (reliability.md section 9)."""
    return max(0.25, patience.doubt / 4)
