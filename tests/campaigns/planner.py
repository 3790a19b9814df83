"""Choice of the next kill: failpoints with too few hits that the state of the job makes possible."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runner.app.failpoints import FAILPOINTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

#: which hit of a point kills
COUNTS = (1, 2, 5)
_NO_QUERY = "the provider has no query for it: a doubt is held at once"
_MAY_BE_HELD = "with a list that lies it may be that nothing is settled"


@dataclass(frozen=True)
class Kind:
    """A class of providers, by the means they offer to resolve a task in doubt."""

    name: str
    provider: str
    model: str
    can_reconcile: bool
    by_reference: bool
    #: points that cannot occur, and why
    impossible: Mapping[str, str]
    #: the provider differs from its documents
    lies: bool = False
    #: tasks of a job, and how many of them are equal
    tasks: int = 24
    repeat: int = 2
    #: submits on the wire at once when the process is killed, instead of at a failpoint; 0: at failpoints
    at_once: int = 0
    #: seconds that the provider takes to answer a submit; None: drawn
    answers_after: float | None = None
    #: the quiet time, seconds
    doubt: float = 1.0

    @property
    def points(self) -> tuple[str, ...]:
        return tuple(point for point in FAILPOINTS if point not in self.impossible)


_SETTLED = ("adopted journaled", "adopted committed", "absent journaled", "absent committed")
KINDS = {
    kind.name: kind
    for kind in (
        Kind("reference", "kling", "image/kling-v2-1", can_reconcile=True, by_reference=True, impossible={}),
        Kind("list", "chanjing", "kling-v2-1", can_reconcile=True, by_reference=False, impossible={}),
        Kind(
            "none",
            "kling-gateway",
            "image/kling-v1-5",
            can_reconcile=False,
            by_reference=False,
            impossible=dict.fromkeys(_SETTLED, _NO_QUERY),
        ),
        Kind(
            "lying-reference",
            "kling",
            "image/kling-v2-1",
            can_reconcile=True,
            by_reference=True,
            impossible=dict.fromkeys(_SETTLED, _MAY_BE_HELD),
            lies=True,
        ),
        Kind(
            "lying-list",
            "chanjing",
            "kling-v2-1",
            can_reconcile=True,
            by_reference=False,
            impossible=dict.fromkeys(_SETTLED, _MAY_BE_HELD),
            lies=True,
        ),
    )
}
#: answers are slow, so that 50 submits are on the wire at once when the process is killed
WIDE = {
    f"wide-{name}": replace(
        KINDS[name],
        name=f"wide-{name}",
        impossible=dict.fromkeys(FAILPOINTS, "it is killed when many submits are on the wire"),
        tasks=400,
        repeat=1,
        at_once=50,
        answers_after=1.0,
        doubt=4.0,
    )
    for name in ("reference", "list", "none")
}


@dataclass(frozen=True)
class Kill:
    """SIGKILL at the n-th hit of a failpoint, with so many submits on the wire, or some seconds after the start."""

    point: str = ""
    count: int = 0
    seconds: float = 0.0
    #: meant for the recovery after another kill
    second: bool = False
    #: submits on the wire
    on_wire: int = 0

    @property
    def mode(self) -> str:
        if self.on_wire:
            return "wire"
        return "point" if self.point else "second" if self.second else "timer"

    def __str__(self) -> str:
        if self.on_wire:
            return f"wire:{self.on_wire}"
        return f"{self.point}:{self.count}" if self.point else f"@{self.seconds:.3f}"

    @classmethod
    def parse(cls, text: str) -> Kill:
        if text.startswith("@"):
            return cls(seconds=float(text[1:]))
        point, _, count = text.partition(":")
        if point == "wire":
            return cls(on_wire=int(count))
        if point not in FAILPOINTS:
            raise ValueError(f"{text!r} is no blow: `point:n` or `@seconds`")
        return cls(point, int(count))


@dataclass(frozen=True)
class Outlook:
    """The number of a job's tasks in each situation, as far as visible from outside."""

    queued: int
    #: sent when the process died
    submitting: int
    #: in doubt and accepted
    taken: int
    #: in doubt and, as it seems, never accepted
    missing: int
    #: with an id and without a file
    unfinished: int

    def capacity(self, point: str) -> int:
        """Return how often the failpoint can occur in the next run."""
        match point.split(maxsplit=1)[0]:
            case "intent" | "answer" | "id":
                return self.queued
            case "doubt" | "recovery":
                return self.submitting
            case "adopted":
                return self.taken
            case "absent":
                return self.missing
            case _:
                return self.unfinished + self.queued


class Planner:
    """Counter of a campaign's hits, from several threads, which chooses the next failpoints."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.hits: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def hit(self, kind: Kind, kill: Kill) -> None:
        with self._lock:
            self.hits[kind.name, kill.point] += 1

    def wanting(self, kind: Kind) -> dict[str, int]:
        """Return the failpoints with too few hits, and the number of missing hits."""
        lacks = {point: self.target - self.hits[kind.name, point] for point in kind.points}
        return {point: lack for point, lack in lacks.items() if lack > 0}

    def choose(self, kind: Kind, outlook: Outlook, chance: Random) -> Kill | None:
        """Return a failpoint that can occur, weighted by missing hits, or one that lets others occur later."""
        wanting = self.wanting(kind)
        weights = {point: 0.1 + wanting.get(point, 0) for point in kind.points if outlook.capacity(point) > 0}
        for point, lack in wanting.items():
            if outlook.capacity(point) <= 0:
                for step in _STEPS_TO.get(point.split()[0], ()):
                    if step in weights:
                        weights[step] += lack
        if not weights:
            return None
        point = chance.choices(list(weights), list(weights.values()))[0]
        most = min(outlook.capacity(point), 2 if not kind.can_reconcile and point.startswith("recovery") else 5)
        return Kill(point, chance.choice([count for count in COUNTS if count <= most]))


#: failpoints that must be hit before another one can occur in the next run
_STEPS_TO = {
    "recovery": ("intent committed", "answer received"),
    "doubt": ("intent committed", "answer received"),
    "adopted": ("answer received",),
    "absent": ("intent journaled", "intent committed"),
}
