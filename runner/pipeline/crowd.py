"""The provider says "full" (Kling 1303) though nothing of ours runs: somebody else has the account's slots.

Nothing of ours will end and make room, so it is asked again at growing intervals, by one submit at a time; after about
a minute that is given up, since nobody here knows what holds the slots: perhaps tasks that were paid for and lost.
"""

from __future__ import annotations

from runner.lifecycle.patience import backoff

#: refusals in a row, with growing pauses between them, before the run stops to submit
_MOST = 7
_LONGEST_PAUSE = 30.0


class Crowd:
    """How often we were turned away; times in seconds of one clock."""

    def __init__(self) -> None:
        self.refusals = 0
        self._until = float("-inf")

    def __repr__(self) -> str:
        return f"Crowd(refusals={self.refusals})"

    @property
    def hopeless(self) -> bool:
        """It has gone on for too long."""
        return self.refusals >= _MOST

    def refused(self, now: float) -> None:
        """Turned away once more; what was on the wire together counts once."""
        if now >= self._until:
            self.refusals += 1
            self._until = now + backoff(self.refusals, cap=_LONGEST_PAUSE)

    def wait(self, now: float) -> float:
        """Seconds until it is worth trying again."""
        return max(0.0, self._until - now)

    def accepted(self) -> None:
        """There is room after all."""
        self.refusals, self._until = 0, float("-inf")
