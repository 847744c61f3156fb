"""How a job is cancelled: scancel, and again after a while if that shows no effect.

Every end that SLURM has to be asked for comes here: of an attempt that we gave up, of one that is
stopped, and of a job that turns up after its attempt has ended.
"""

from collections.abc import Sequence
from dataclasses import replace

from isthmus.slurmjob.actions import Cancel
from isthmus.slurmjob.observation import SlurmJobPlan
from isthmus.slurmjob.record import AttemptStatus


def cancel(
    status: AttemptStatus, *, job_ids: Sequence[int], repeat: float, now: float
) -> SlurmJobPlan:
    """Cancel the jobs of one attempt, unless that was done less than `repeat` seconds ago.

    Args:
        status: the attempt's; `ending.cancelled_at` says when it was done last.
        job_ids: of its jobs.
        repeat: seconds until it is done again.
        now: epoch seconds.
    """
    sent = status.ending.cancelled_at
    if sent is not None and now - sent < repeat:
        return SlurmJobPlan(status=status, requeue_after=sent + repeat - now)
    return SlurmJobPlan(
        status=replace(status, ending=replace(status.ending, cancelled_at=now)),
        actions=tuple(Cancel(job_id=job_id) for job_id in job_ids),
        requeue_after=repeat,
    )
