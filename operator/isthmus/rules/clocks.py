"""The operator's wall clock may be set back; what we wrote down ourselves is then in the future.

A wait that counts from such a moment would last as long as the clock was set back by. It begins
anew instead: that is bounded, and never shorter than what was promised.
"""

from isthmus.api.slurmjob import SlurmJobStatus
from isthmus.api.times import epoch, rfc3339

TOLERANCE = 2.0
"""Seconds: our stamps are rounded, and two replicas differ a little."""

_OWN_STAMPS = (
    "submit_started_at",
    "unknown_since",
    "unsent_at",
    "degraded_since",
    "draining_since",
    "terminated_at",
    "cancelled_at",
    "gate_claimed_at",
    "gate_failed_at",
    "finished_at",
)
"""Written from the operator's clock; the others are SLURM's."""


def not_in_the_future(status: SlurmJobStatus, *, now: float) -> SlurmJobStatus:
    """The status with every stamp of ours at most now (epoch seconds)."""
    late = {
        field: rfc3339(now)
        for field in _OWN_STAMPS
        if (moment := epoch(getattr(status, field))) is not None and moment > now + TOLERANCE
    }
    return status.model_copy(update=late) if late else status
