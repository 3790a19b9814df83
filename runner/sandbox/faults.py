"""Fault injection: a plan for each kind of fault, and a generator that repeats its choices for the same seed.

Only requests that would succeed are counted, with one count for each group. A submit that is refused anyway (bad token,
too fast, bad field) neither gets a fault nor counts. If several kinds of a group are due, the first one is injected.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

#: Faults of submits. `*_before`, `http_502_html` and `html_200` are not accepted. All others are accepted and charged,
#: `late_accept` only after the connection has closed.
SUBMIT = (
    "lost_reply",
    "reset_after",
    "reset_before",
    "cut_reply",
    "http_500_after",
    "http_504_before",
    "http_502_html",
    "html_200",
    "slow_reply",
    "late_accept",
)
#: Faults of all queries. The response is an error, a page or a reset.
QUERY = ("poll_500", "poll_html", "poll_reset")
#: Faults of queries that name tasks by the provider's ids.
POLL = (*QUERY, "poll_missing", "poll_unknown_state")
#: Faults of tasks. The first query that reports the task as finished shows no outputs.
FINISH = ("success_empty",)
#: Faults of downloads.
DOWNLOAD = (
    "cut_download",
    "reset_download",
    "html_download",
    "expired_link",
    "slow_download",
    "http_429_download",
    "empty_download",
)
#: Faults of Chanjing requests with a valid token.
AUTH = ("token_dead",)
#: Refusals after the charge: the task is made, and the submit is answered as refused all the same: too fast, too many
#: at once, for its content, or for lack of credit.
CHARGED = (
    "refuse_after_charge",
    "refuse_window_after_charge",
    "refuse_content_after_charge",
    "refuse_credit_after_charge",
)
#: Refusals that cost nothing, of submits that would succeed: too fast.
THROTTLE = ("throttle",)
#: Faults of the list of charges.
BILLS = ("bills_fail",)
#: Tasks of somebody else on the account, accepted just before a submit that would succeed: an unrelated one, one with
#: the same request, and one whose request differs only in an image.
STRANGERS = ("foreign_task", "twin_equal", "twin_hidden")
#: Lies of a provider that differs from its documents. `no_reference`: it drops external_task_id and takes duplicates.
#: `any_reference`: a query by an unknown external id returns the newest task. `absent_lies`: a query by an external id
#: finds nothing. `batch_drops`: a query by several ids leaves a task out. `id_changes`: ids differ from those in the
#: responses to submits. The others change lists: every other row is left out, no row is shown, every page is the first
#: one, the order is that of the ids, or oldest first, rows show the external id or the prompt of their neighbour,
#: prompts are hidden or cut, rows have no time or one in text.
LIES = (
    "no_reference",
    "any_reference",
    "absent_lies",
    "batch_drops",
    "id_changes",
    "list_holes",
    "list_blank",
    "list_one_page",
    "list_unordered",
    "list_oldest_first",
    "echo_wrong",
    "list_hides_prompt",
    "list_cuts_prompt",
    "list_no_times",
    "list_text_times",
)
KINDS = frozenset((*CHARGED, *THROTTLE, *BILLS, *SUBMIT, *POLL, *FINISH, *DOWNLOAD, *AUTH, *STRANGERS, *LIES))

#: A share of the requests (0 to 1), or the numbers (from 1) of the requests that get the fault.
FaultPlan = float | frozenset[int]


@dataclass(frozen=True, slots=True)
class Faults:
    """The plans of all faults to inject, by kind.

    A plan is written as a share or as request numbers: `{"kind": 0.05, "other": "@3,7", "third": [3, 7]}`. An unknown
    kind or an invalid plan raises ValueError.
    """

    plans: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := set(self.plans) - KINDS:
            raise ValueError(f"no such fault: {', '.join(sorted(unknown))}; there are: {', '.join(sorted(KINDS))}")
        object.__setattr__(self, "plans", {kind: _parse_plan(value) for kind, value in self.plans.items()})

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "Faults":
        """Parse texts such as `kind=0.05` (a share) or `kind=@3,7` (the 3rd and the 7th request).

        Raise ValueError for anything else.
        """
        return cls(dict(map(_split_argument, texts)))

    def to_dict(self) -> dict[str, float | list[int]]:
        """Return the plans as JSON values that the constructor accepts."""
        return {kind: plan if isinstance(plan, float) else sorted(plan) for kind, plan in self.plans.items()}


def _split_argument(text: str) -> tuple[str, str]:
    kind, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is no fault: write kind=0.05 or kind=@3,7")
    return kind, value


def _parse_plan(value: object) -> FaultPlan:
    if isinstance(value, str) and value.startswith("@"):
        return frozenset(int(number) for number in value[1:].split(","))
    if isinstance(value, list | set | frozenset | tuple):
        return frozenset(int(number) for number in value)
    share = float(str(value))
    if not 0 <= share <= 1:
        raise ValueError(f"{share} is no share: write a number from 0 to 1, or @3,7 for the 3rd and the 7th")
    return share


def fraction(*parts: object) -> float:
    """Return a number in [0, 1) that depends only on the parts."""
    digest = blake2b("|".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


class FaultInjector:
    """Chooser of the fault for each request, by counting the requests of each group."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self._faults = faults
        self._seed = seed
        self._counts: Counter[tuple[str, ...]] = Counter()
        #: Number of faults injected, by kind.
        self.injected: Counter[str] = Counter()

    def next_fault(self, group: tuple[str, ...]) -> str | None:
        """Count a request of the group, and return the kind of fault to inject into it, or None."""
        if self._faults.plans.keys().isdisjoint(group):
            return None
        self._counts[group] += 1
        kind = next((kind for kind in group if self._is_due(kind, self._counts[group])), None)
        if kind:
            self.injected[kind] += 1
        return kind

    def _is_due(self, kind: str, number: int) -> bool:
        plan: FaultPlan = self._faults.plans.get(kind, 0.0)
        if isinstance(plan, frozenset):
            return number in plan
        return fraction(self._seed, kind, number) < plan
