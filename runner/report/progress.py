"""Show the progress of a run: a live display on a terminal, a plain line every 30 seconds elsewhere."""

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
#: seconds of remaining time below which no number is shown
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
#: states that every task enters and leaves all the time, which make no line of their own
_FLEETING = {State.SUBMITTING, State.READY}


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts about a run that do not change while it runs."""

    job: str
    #: unit of costs by provider
    units: Mapping[str, str] = field(default_factory=dict)
    #: cap on the cost of the job, in that unit
    max_cost: float | None = None
    #: submits per second that each provider allows
    limits: Mapping[str, float] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """Return the unit of costs, or an empty string if it is unknown or differs between providers."""
        found = set(self.units.values())
        return found.pop() if len(found) == 1 else ""


def cost(info: Facts, stats: Tally) -> str:
    """Return the cost so far, such as `cost 48 of 500 credits`, or an empty string if there is none."""
    if len(set(info.units.values())) > 1:
        parts = (
            f"{provider.cost:g} {info.units.get(name, '')}" for name, provider in stats.shares.items() if provider.cost
        )
        amounts = " + ".join(part.rstrip() for part in parts)
        return f"cost {amounts}" if amounts else ""
    spent = stats.cost_before + stats.cost
    if not spent and info.max_cost is None:
        return ""
    cap = "" if info.max_cost is None else f" of {info.max_cost:g}"
    return f"cost {'at least ' if stats.unpriced else ''}{spent:g}{cap} {info.unit}".rstrip()


def speed(stats: Tally, now: float) -> str:
    """Return rate and remaining time, such as `12/min, eta 3 min`, or an empty string if no task is left."""
    if not stats.open or stats.stopping:
        return ""
    eta = stats.eta(now)
    eta_text = "eta unknown" if eta is None else "eta under 10 s" if eta < _SOON else f"eta {duration(eta)}"
    rate = stats.rate(now)
    return f"{pace(rate)}, {eta_text}" if rate and eta is not None else eta_text


def sentence(info: Facts, stats: Tally, now: float) -> str:
    """Return the state of the run in one line."""
    states = stats.states
    parts = [f"{states[State.DONE]}/{stats.total} done"]
    parts += [f"{states[state]} {word}" for state, word in _WORDS if states[state] > 0]
    parts += [part for part in (speed(stats, now), cost(info, stats)) if part]
    if stats.stopping:
        parts.append("stopping")
    if stats.last_fault:
        parts.append(f"last: {harmless(stats.last_fault, 60)}")
    return f"{info.job}: {' · '.join(parts)}"


def brief(info: Facts, stats: Tally, now: float) -> str:
    """Return the state of the run in a short line for a narrow terminal, most important parts first."""
    states = stats.states
    parts = [f"{states[State.DONE]}/{stats.total}", "stopping" if stats.stopping else ""]
    parts += [f"{states[state]} {word}" for state, word in _TROUBLES if states[state] > 0]
    parts += [speed(stats, now).rpartition(", ")[2], cost(info, stats)]
    return f"{info.job} {' · '.join(part for part in parts if part)}"


class Plain:
    """Progress as plain lines: one every 30 seconds, and one when a state is entered for the first time."""

    def __init__(self, info: Facts, stats: Tally, stream: TextIO) -> None:
        self._facts, self._tally, self._stream = info, stats, stream
        self._kinds: set[str] = set()
        self._next = float("-inf")

    def update(self, now: float) -> None:
        """Print a line if one is due at `now` (seconds); a closed output must not stop the run."""
        states = {state for state, count in self._tally.states.items() if count > 0} - _FLEETING
        states |= {"stopping"} if self._tally.stopping else set()
        if now < self._next and states <= self._kinds:
            return
        self._kinds |= states
        self._next = now + EVERY
        try:
            print(sentence(self._facts, self._tally, now), file=self._stream, flush=True)
        except OSError:
            self._next = float("inf")


@contextmanager
def shown(info: Facts, stats: Tally, stream: TextIO, *, quiet: bool) -> Iterator[Callable[[float], None]]:
    """Yield a function that updates the progress when it is called with the current time in seconds.

    The progress is live on a terminal, plain lines elsewhere, and nothing if `quiet`.
    """
    if quiet:
        yield lambda _: None
        return
    if stream.isatty():
        from runner.report.live import live  # noqa: PLC0415 - only a terminal pays for rich

        with live(info, stats, stream) as update:
            if update is not None:
                yield update
                return
    yield Plain(info, stats, stream).update
