"""How an attempt is ended for a reason of ours while its object stays: the record of what failed.

Apart from stopping, which ends what nobody wants any more and drains it first.
"""

from dataclasses import replace

from isthmus.api.conditions import Phase, Reason
from isthmus.backends.slurm.records import JobRecord
from isthmus.slurmjob.observation import SlurmJobObservation, SlurmJobPlan
from isthmus.slurmjob.policy.cancelling import cancel
from isthmus.slurmjob.record import AttemptStatus


def give_up(
    observed: SlurmJobObservation,
    status: AttemptStatus,
    *,
    reason: Reason,
    message: str,
    record: JobRecord,
    now: float,
) -> SlurmJobPlan:
    """End the attempt for a reason of ours, which stays when the job has ended.

    Its phase takes it out of the membership, and no probe brings it back.
    """
    given_up = replace(
        status,
        phase=Phase.TERMINATING,
        reason=reason,
        message=message,
        healthy=False,
        job=replace(status.job, job_id=record.job_id),
    )
    return end_given_up(given_up, observed, now=now)


def end_given_up(
    status: AttemptStatus, observed: SlurmJobObservation, *, now: float
) -> SlurmJobPlan:
    """Cancel the job of an attempt that we gave up."""
    return cancel(status, job_ids=(status.job.job_id or 0,), repeat=observed.limits.repeat, now=now)
