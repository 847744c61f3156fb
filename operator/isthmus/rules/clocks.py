"""The operator's wall clock may be set back; what we wrote down ourselves is then in the future.

A wait that counts from such a moment would last as long as the clock was set back by. It begins
anew instead: that is bounded, and never shorter than what was promised.
"""

TOLERANCE = 2.0
"""Seconds: our stamps may be rounded, and two replicas differ a little."""


def at_most_now(moment: float | None, *, now: float) -> float | None:
    """A moment that we wrote down ourselves, or now where it lies in the future (epoch seconds)."""
    return now if moment is not None and moment > now + TOLERANCE else moment
