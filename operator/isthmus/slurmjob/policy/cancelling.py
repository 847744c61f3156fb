"""How a job is cancelled: scancel, and again after a while if that shows no effect.

Every end that SLURM has to be asked for comes here: of an attempt that we gave up, of one that is
stopped, and of a job that turns up after its attempt has ended.
"""

from collections.abc import Sequence

from isthmus.api.slurmjob import SlurmJobStatus
from isthmus.api.times import epoch, rfc3339
from isthmus.slurmjob.actions import Cancel
from isthmus.slurmjob.observation import SlurmJobPlan


def cancel(
    status: SlurmJobStatus, *, job_ids: Sequence[int], repeat: float, now: float
) -> SlurmJobPlan:
    """Cancel the jobs of one attempt, unless that was done less than `repeat` seconds ago.

    Args:
        status: the attempt's; `cancelled_at` says when it was done last.
        job_ids: of its jobs.
        repeat: seconds until it is done again.
        now: epoch seconds.
    """
    sent = epoch(status.cancelled_at)
    if sent is not None and now - sent < repeat:
        return SlurmJobPlan(status=status, requeue_after=sent + repeat - now)
    return SlurmJobPlan(
        status=status.model_copy(update={"cancelled_at": rfc3339(now)}),
        actions=tuple(Cancel(job_id=job_id) for job_id in job_ids),
        requeue_after=repeat,
    )
