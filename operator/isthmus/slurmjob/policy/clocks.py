"""Which moments in the status of an attempt are ours, and so never in the future (`rules.clocks`).

The times of its job are SLURM's, by another clock, and stay as they are.
"""

from dataclasses import replace

from isthmus.rules.clocks import at_most_now
from isthmus.slurmjob.record import AttemptStatus


def not_in_the_future(status: AttemptStatus, *, now: float) -> AttemptStatus:
    """The status with every moment of ours at most now (epoch seconds)."""

    def past(moment: float | None) -> float | None:
        return at_most_now(moment, now=now)

    submission, gate, ending = status.submission, status.gate, status.ending
    ours = (
        status.degraded_since,
        status.probes_failed_since,
        submission.started_at,
        submission.unsent_at,
        submission.unknown_since,
        gate.claimed_at,
        gate.failed_at,
        ending.draining_since,
        ending.terminated_at,
        ending.cancelled_at,
        ending.finished_at,
    )
    if all(past(moment) == moment for moment in ours):
        return status
    return replace(
        status,
        degraded_since=past(status.degraded_since),
        probes_failed_since=past(status.probes_failed_since),
        submission=replace(
            submission,
            started_at=past(submission.started_at),
            unsent_at=past(submission.unsent_at),
            unknown_since=past(submission.unknown_since),
        ),
        gate=replace(gate, claimed_at=past(gate.claimed_at), failed_at=past(gate.failed_at)),
        ending=replace(
            ending,
            draining_since=past(ending.draining_since),
            terminated_at=past(ending.terminated_at),
            cancelled_at=past(ending.cancelled_at),
            finished_at=past(ending.finished_at),
        ),
    )
