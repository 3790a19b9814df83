"""The faults of one seed: every seed draws its own faults, rates and times (swarm testing)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from runner.app.failpoints import FAILPOINTS

if TYPE_CHECKING:
    from runner.sandbox.options import Options

KINDS = ("kling", "chanjing", "kling-gateway")
DAY = 86_400.0
#: what may happen to one submit, and the highest rate at which a seed lets it happen
SUBMIT_FAULTS = {
    "not_sent": 0.15,
    "lost": 0.15,
    "answer_lost": 0.2,
    "late": 0.15,
    "slow_answer": 0.3,
    "status_5xx": 0.15,
    "unknown_code": 0.1,
    "no_id": 0.1,
    "not_json": 0.08,
    "twice": 0.08,
    "throttled": 0.2,
    "window": 0.1,
    "moderated": 0.1,
    "invalid": 0.05,
    "no_money": 0.01,
}
QUERY_FAULTS = {
    "not_sent": 0.08,
    "no_answer": 0.08,
    "slow": 0.1,
    "status_5xx": 0.15,
    "throttled": 0.1,
    "not_json": 0.05,
    "unknown": 0.1,
    "gone": 0.1,
}
FETCH_FAULTS = {"later": 0.2, "dead": 0.1, "slow": 0.2}
FATES = {"failed": 0.15, "moderated": 0.1, "stuck": 0.05, "empty": 0.08, "short": 0.1}


@dataclass(frozen=True)
class Span:
    """A fault and the interval of virtual time in which it is active."""

    start: float
    end: float
    manner: str

    def covers(self, now):
        return self.start <= now < self.end


@dataclass(frozen=True)
class Crash:
    """The end of one process of the client: at the n-th failpoint, at the n-th of one name, or at a time."""

    at: str
    count: float


@dataclass(frozen=True)
class Life:
    """One process of the client: its end, and the machine's state when the next one starts."""

    crash: Crash | None = None
    #: seconds until the next one starts
    pause: float = 1.0
    #: seconds by which the wall clock is set before the next one starts
    wall_jump: float = 0.0
    reboot: bool = False
    #: a journal line that was being written
    torn: bool = False
    #: virtual seconds after which SIGTERM comes, and how often
    term: tuple[float, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Everything that a seed decides."""

    seed: int
    kind: str = "kling"
    shuffled: bool = True
    #: distinct requests; each is ordered `repeat` times, so more than one means duplicates
    prompts: int = 6
    repeat: int = 1
    #: requests a second
    rate: float = 2.0
    query_rate: float = 10.0
    window: int | None = None
    #: the quiet time D, seconds
    doubt: float = 120.0
    #: how long what is paid is waited for, seconds
    paid: float = 3600.0
    #: refusals without a fault of its own after which a task has failed
    throttles: int = 1000
    #: seconds after which a run sends no more submits
    deadline: float | None = None
    #: the longest time that a slow answer to a submit takes
    slowest: float = 58.0
    submit: dict[str, float] = field(default_factory=dict)
    query: dict[str, float] = field(default_factory=dict)
    fetch: dict[str, float] = field(default_factory=dict)
    fates: dict[str, float] = field(default_factory=dict)
    #: accepted tasks show in lists and queries after at most this share of D
    lag: float = 0.0
    #: seconds that a task takes, at least and at most
    takes: tuple[float, float] = (3.0, 40.0)
    #: seconds that a file takes, at least and at most
    fetches: tuple[float, float] = (0.05, 2.0)
    outages: tuple[Span, ...] = ()
    #: the file host alone is away
    files_away: tuple[Span, ...] = ()
    storms: tuple[Span, ...] = ()
    disk_full: tuple[Span, ...] = ()
    #: longest time that one group of transactions takes, seconds
    slow_disk: float = 0.0
    #: unrelated tasks on the account, made before and during the run
    unrelated: int = 0
    #: the list leaves one row out of one reading, once for each row
    skips: bool = False
    page_size: int = 50
    ordered: bool = True
    #: the list shows the prompt other than it was sent
    trims: bool = False
    #: kling: a reference that is taken is refused with 1201
    dedupes: bool = False
    #: kling with `dedupes`: tasks may stay out of sight for much longer than D, against assumption A4
    hides: bool = False
    #: a submit that is refused as too fast is made all the same
    charges: bool = False
    #: the account has bought before, and its lists were measured then
    prior: bool = True
    lives: tuple[Life, ...] = ()
    #: what happens to single submits, by their number from 1, instead of what the rates say
    script: dict[int, str] = field(default_factory=dict)
    #: options of the sandbox that answers instead of an honest provider
    lies: Options | None = None
    #: when everything begins to work, in liveness; None: never
    heals: float | None = None


def draw(seed: int, *, kind: str | None = None, liveness: bool | None = None) -> Plan:
    """Return the plan of a seed."""
    dice = random.Random(f"plan {seed}")
    kind_drawn = dice.choices(KINDS, (4, 4, 2))[0]
    kind = kind or kind_drawn
    duplicates = kind == "chanjing" and dice.random() < 0.6
    liveness_drawn = dice.random() < 0.5
    plan = Plan(
        seed=seed,
        kind=kind,
        shuffled=dice.random() < 0.8,
        prompts=dice.choice((2, 3, 4) if duplicates else (3, 5, 8, 12)),
        repeat=dice.choice((2, 3, 4)) if duplicates else 1,
        rate=dice.choice((0.5, 2.0, 5.0)),
        window=dice.choice((None, None, 2, 5)),
        doubt=dice.choice((40.0, 120.0, 300.0)),
        submit=_some(dice, SUBMIT_FAULTS),
        query=_some(dice, QUERY_FAULTS),
        fetch=_some(dice, FETCH_FAULTS),
        fates=_some(dice, FATES),
        lag=dice.choice((0.0, 0.3, 0.95)),
        takes=dice.choice(((1.0, 5.0), (3.0, 60.0), (30.0, 200.0))),
        outages=_spans(dice, 0.25, (20.0, 200.0, 1200.0), ("refused", "silent", "5xx")),
        storms=_spans(dice, 0.4, (20.0, 60.0, 180.0), ("throttled", "5xx")),
        disk_full=_spans(dice, 0.12, (5.0, 60.0), ("full",)),
        slow_disk=dice.choice((0.0, 0.0, 0.0, 0.05, 3.0)),
        unrelated=dice.choice((0, 0, 3, 60)),
        skips=dice.random() < 0.4,
        page_size=dice.choice((5, 20, 50)),
        ordered=dice.random() < 0.8,
        trims=dice.random() < 0.05,
        dedupes=dice.random() < 0.4,
        hides=dice.random() < 0.5,
        lives=tuple(_life(dice) for _ in range(dice.choice((0, 1, 2, 3)))),
        heals=dice.uniform(60.0, 600.0),
    )
    if any(life.reboot for life in plan.lives):
        # over a reboot only the wall clock says when a request was sent, so there it must be right within SKEW
        plan = replace(
            plan, lives=tuple(replace(life, wall_jump=max(-80.0, min(80.0, life.wall_jump))) for life in plan.lives)
        )
    plan = replace(
        plan, hides=plan.hides and plan.dedupes and kind == "kling", dedupes=plan.dedupes and kind == "kling"
    )
    plan = replace(plan, prior=dice.random() < 0.7)
    return plan if (liveness_drawn if liveness is None else liveness) else replace(plan, heals=None)


def _some(dice, rates):
    """Draw some of the faults, each with its own rate, and sometimes none."""
    if dice.random() < 0.1:
        return {}
    share = dice.choice((0.2, 0.4, 0.7))
    return {name: dice.uniform(0.2, 1.0) * most for name, most in rates.items() if dice.random() < share}


def _spans(dice, chance, lengths, manners):
    spans = []
    while dice.random() < chance and len(spans) < 2:
        start = dice.choice((0.0, dice.uniform(0.0, 60.0), dice.uniform(0.0, 400.0)))
        spans.append(Span(start, start + dice.choice(lengths) * dice.uniform(0.5, 1.5), dice.choice(manners)))
    return tuple(spans)


POINTS = (
    *FAILPOINTS,
    # of the simulation: bytes are on their way, or may be
    "request leaving",
    "query leaving",
)


def _life(dice):
    way = dice.random()
    crash = None
    if way < 0.3:
        crash = Crash("", dice.choice((1, 2, dice.randrange(1, 20), dice.randrange(1, 120))))
    elif way < 0.7:
        crash = Crash(dice.choice(POINTS), dice.choice((1, 1, 2, 5)))
    elif way < 0.9:
        crash = Crash("time", dice.choice((dice.uniform(0.0, 10.0), dice.uniform(0.0, 200.0))))
    term = (dice.uniform(0.0, 60.0),) if dice.random() < 0.25 else ()
    if term and dice.random() < 0.3:
        term = (*term, term[0] + dice.uniform(0.0, 20.0))
    return Life(
        crash=crash,
        pause=dice.choice((0.1, 2.0, dice.uniform(0.0, 60.0), 900.0)),
        wall_jump=dice.choice((0.0, 0.0, 0.0, 200.0, -200.0, 3600.0, -3600.0, DAY, -DAY, -40 * 365 * DAY)),
        reboot=dice.random() < 0.2,
        torn=dice.random() < 0.3,
        term=term,
    )
