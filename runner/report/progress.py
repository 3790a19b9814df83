"""What is seen while a run goes on: a live view on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from runner.lifecycle.task import State
from runner.report.text import duration, harmless, pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runner.report.tally import Tally

#: seconds between two plain lines
EVERY = 30.0
#: seconds below which a guess says no number
_SOON = 10.0
_WORDS = (
    (State.QUEUED, "to submit"),
    (State.SUBMITTING, "submitting"),
    (State.RUNNING, "running"),
    (State.READY, "downloading"),
    (State.IN_DOUBT, "in doubt"),
    (State.HELD, "held"),
    (State.FAILED, "failed"),
    (State.STRANDED, "stranded"),
)
_TROUBLES = _WORDS[4:]
#: entered and left by every task all the time, so no news
_FLEETING = {State.SUBMITTING, State.READY}


@dataclass(frozen=True, slots=True)
class Facts:
    """What does not change during a run."""

    job: str
    #: what each provider counts costs in
    units: Mapping[str, str] = field(default_factory=dict)
    #: what the job may cost
    max_cost: float | None = None
    #: how many submits a second each provider may get
    limits: Mapping[str, float] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """What costs are counted in; empty where nobody says or providers differ."""
        found = set(self.units.values())
        return found.pop() if len(found) == 1 else ""


def cost(facts: Facts, tally: Tally) -> str:
    """`cost 48 of 500 credits`; empty where nothing is known of costs."""
    if len(set(facts.units.values())) > 1:
        parts = (f"{share.cost:g} {facts.units.get(name, '')}" for name, share in tally.shares.items() if share.cost)
        said = " + ".join(part.rstrip() for part in parts)
        return f"cost {said}" if said else ""
    spent = tally.cost_before + tally.cost
    if not spent and facts.max_cost is None:
        return ""
    cap = "" if facts.max_cost is None else f" of {facts.max_cost:g}"
    return f"cost {'at least ' if tally.unpriced else ''}{spent:g}{cap} {facts.unit}".rstrip()


def speed(tally: Tally, now: float) -> str:
    """`12/min, 3 min to go`; empty where nothing is left to do or nothing has begun."""
    if not tally.open or tally.stopping:
        return ""
    eta = tally.eta(now)
    to_go = "eta unknown" if eta is None else "eta under 10 s" if eta < _SOON else f"eta {duration(eta)}"
    rate = tally.rate(now)
    return f"{pace(rate)}, {to_go}" if rate and eta is not None else to_go


def sentence(facts: Facts, tally: Tally, now: float) -> str:
    """Where the run stands, in one line."""
    states = tally.states
    parts = [f"{states[State.DONE]}/{tally.total} done"]
    parts += [f"{states[state]} {word}" for state, word in _WORDS if states[state] > 0]
    parts += [part for part in (speed(tally, now), cost(facts, tally)) if part]
    if tally.stopping:
        parts.append("stopping")
    if tally.last_fault:
        parts.append(f"last: {harmless(tally.last_fault, 60)}")
    return f"{facts.job}: {' · '.join(parts)}"


def brief(facts: Facts, tally: Tally, now: float) -> str:
    """The same for a narrow window: what matters most comes first."""
    states = tally.states
    parts = [f"{states[State.DONE]}/{tally.total}", "stopping" if tally.stopping else ""]
    parts += [f"{states[state]} {word}" for state, word in _TROUBLES if states[state] > 0]
    parts += [speed(tally, now).rpartition(", ")[2], cost(facts, tally)]
    return f"{facts.job} {' · '.join(part for part in parts if part)}"


class Plain:
    """A line every 30 s, and whenever a kind of state is entered for the first time."""

    def __init__(self, facts: Facts, tally: Tally, stream: TextIO) -> None:
        self._facts, self._tally, self._stream = facts, tally, stream
        self._kinds: set[str] = set()
        self._next = float("-inf")

    def update(self, now: float) -> None:
        """Say something if there is something to say; an output that is gone stops nothing (FP8)."""
        kinds = {state for state, count in self._tally.states.items() if count > 0} - _FLEETING
        kinds |= {"stopping"} if self._tally.stopping else set()
        if now < self._next and kinds <= self._kinds:
            return
        self._kinds |= kinds
        self._next = now + EVERY
        try:
            print(sentence(self._facts, self._tally, now), file=self._stream, flush=True)
        except OSError:
            self._next = float("inf")


@contextmanager
def shown(facts: Facts, tally: Tally, stream: TextIO, *, quiet: bool) -> Iterator[Callable[[float], None]]:
    """What to call now and then with the present time; live on a terminal, plain elsewhere, silent when quiet."""
    if quiet:
        yield lambda _: None
        return
    if stream.isatty():
        from runner.report.live import live  # noqa: PLC0415 - only a terminal pays for rich

        with live(facts, tally, stream) as update:
            if update is not None:
                yield update
                return
    yield Plain(facts, tally, stream).update
