"""How far this machine's clock is from a provider's, by the `Date` of an answer, and what is said of it (FC2)."""

from __future__ import annotations

#: seconds by which clocks may differ before a person hears of it, and before nothing is bought where it signs requests
APART, FAR = 60.0, 300.0
_CURE = "Set it right, e.g. timedatectl set-ntp true"


def skew(theirs: float, begun: float, ended: float) -> float:
    """Seconds by which our clock is certainly ahead of theirs (negative: behind).

    `theirs` is a whole second somewhere between the beginning and the end of the exchange by our clock.
    """
    if theirs > ended:
        return ended - theirs
    return max(0.0, begun - (theirs + 1.0))


def said(name: str, ahead: float) -> str:
    """What is wrong, and what to do about it."""
    return f"{_apart(name, ahead)}; it is corrected for where that can be. {_CURE}"


def refused(name: str, ahead: float) -> str:
    """Why nothing is bought, and what to do about it."""
    return f"{_apart(name, ahead)}, and requests are signed by it: nothing was submitted. {_CURE}"


def _apart(name: str, ahead: float) -> str:
    return f"this machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} {name}'s"
