"""Which request goes wrong, and how: a plan for each kind of fault, and dice that fall alike for the same seed.

Only requests that would have gone well are counted, one count for each group: a submit that is refused anyway (bad
token, too fast, bad field) is neither struck nor counted. The first kind of a group that strikes wins.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

#: Submits. `_before` and the pages: not accepted. `_after`, `lost_reply`, `cut_reply`, `slow_reply`: accepted, charged.
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
#: Queries of any kind: answered by something that is no answer.
QUERY = ("poll_500", "poll_html", "poll_reset")
#: Queries that name tasks by the provider's ids.
POLL = (*QUERY, "poll_missing", "poll_unknown_state")
#: Tasks, at the first look that would show them finished: that look shows no outputs.
FINISH = ("success_empty",)
DOWNLOAD = (
    "cut_download",
    "reset_download",
    "html_download",
    "expired_link",
    "slow_download",
    "http_429_download",
    "empty_download",
)
#: Chanjing requests with a valid token.
AUTH = ("token_dead",)
KINDS = frozenset((*SUBMIT, *POLL, *FINISH, *DOWNLOAD, *AUTH))

#: A share of the requests, or the numbers (from 1) of exactly those to strike.
Plan = float | frozenset[int]


@dataclass(frozen=True, slots=True)
class Faults:
    """A plan for each kind of fault that shall happen; `{"kind": 0.05, "other": "@3,7", "third": [3, 7]}` will do."""

    plans: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := set(self.plans) - KINDS:
            raise ValueError(f"no such fault: {', '.join(sorted(unknown))}; there are: {', '.join(sorted(KINDS))}")
        object.__setattr__(self, "plans", {kind: _plan(value) for kind, value in self.plans.items()})

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "Faults":
        """Read `kind=0.05` (a share) and `kind=@3,7` (the 3rd and the 7th)."""
        return cls(dict(map(_parse, texts)))

    def to_json(self) -> dict[str, float | list[int]]:
        return {kind: plan if isinstance(plan, float) else sorted(plan) for kind, plan in self.plans.items()}


def _parse(text: str) -> tuple[str, str]:
    kind, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is no fault: write kind=0.05 or kind=@3,7")
    return kind, value


def _plan(value: object) -> Plan:
    if isinstance(value, str) and value.startswith("@"):
        return frozenset(int(number) for number in value[1:].split(","))
    if isinstance(value, list | set | frozenset | tuple):
        return frozenset(int(number) for number in value)
    return _share(float(str(value)))


def _share(share: float) -> float:
    if not 0 <= share <= 1:
        raise ValueError(f"{share} is no share: write a number from 0 to 1, or @3,7 for the 3rd and the 7th")
    return share


def fraction(*parts: object) -> float:
    """Return a number in [0, 1) that depends on nothing but the parts."""
    digest = blake2b("|".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


class Dice:
    """Counts the requests of each group and says which fault strikes the next one."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self._faults = faults
        self._seed = seed
        self._rolled: Counter[tuple[str, ...]] = Counter()
        #: How often each kind has struck.
        self.struck: Counter[str] = Counter()

    def roll(self, group: tuple[str, ...]) -> str | None:
        """Return the kind of fault that strikes the next request of the group, if one does."""
        if self._faults.plans.keys().isdisjoint(group):
            return None
        self._rolled[group] += 1
        kind = next((kind for kind in group if self._strikes(kind, self._rolled[group])), None)
        if kind:
            self.struck[kind] += 1
        return kind

    def _strikes(self, kind: str, number: int) -> bool:
        plan: Plan = self._faults.plans.get(kind, 0.0)
        if isinstance(plan, frozenset):
            return number in plan
        return fraction(self._seed, kind, number) < plan
