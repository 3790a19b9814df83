"""Define the retry policy: how long to wait and how often to try. Every cycle of the transitions is bounded by it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Retry limits of one provider's tasks. All times are in seconds."""

    #: counted rejections of a submit after which the task has failed
    max_attempts: int = 4
    #: rejections caused by the account (rate limit, no network) after which the task has failed
    max_throttles: int = 1000
    #: time limit for polling and downloading a paid task (manifest key `retry.patience`)
    paid_timeout: float = 172_800.0
    #: quiet time after which an absence from the provider's list is believed (manifest key `retry.doubt`)
    quiet_time: float = 120.0
    #: True if the provider offers a way to find a submit whose answer was lost
    can_reconcile: bool = True
    #: clean reconciles that must agree on an absence; the last one begins after the quiet time
    required_absences: int = 2
    #: an absence is believed only after a task that was accepted later (manifest key `retry.absence: witnessed`)
    witnessed_only: bool = False
    #: seconds after which a doubt that only a later task, or a readable list, could settle is left to an operator
    witness_patience: float = 3 * 86_400.0
    #: unclear submits of one generation after which an operator must decide
    max_doubts: int = 3
    #: purchases of one task after which even a retry by the user is not accepted
    max_generations: int = 20
    #: failed reconciles in a row after which the task is left to the next run
    max_unclean: int = 10
    #: answers without an id adopted by an operator, after which the operator must decide again
    max_unknown: int = 4
    #: polls that report success without outputs, after which the outputs count as lost
    max_settlings: int = 20
    #: dead links after which the outputs count as lost
    max_refreshes: int = 8
    #: seconds between two fetches from a host that does not serve its files, at most
    longest_fetch_wait: float = 900.0
    #: delay from acceptance to the first poll
    first_poll: float = 2.0


def backoff(failures: int, *, base: float = 1.0, cap: float = 60.0) -> float:
    """Return the seconds to wait after `failures` failures in a row: doubling from `base`, at most `cap`."""
    return min(cap, base * 2.0 ** min(failures - 1, 30)) if failures > 0 else 0.0


def reconcile_interval(policy: RetryPolicy) -> float:
    """Return the seconds between two reconciles of one doubt: a quarter of the quiet time, at least 0.25."""
    return max(0.25, policy.quiet_time / 4)


def suspect_interval(policy: RetryPolicy, looks: int = 0) -> float:
    """Return the seconds until a refused submit is looked up, after so many looks: 2 at first, and then doubling."""
    return min(2.0 * 2.0 ** min(looks, 30), policy.quiet_time / 8 * (1 + looks), reconcile_interval(policy))
