"""What holds where SLURM's answer has records that cannot be read.

A job of which only id and name can be read is there: its attempt stays as it was, in its phase and
in rotation, and neither an end nor a start is concluded. A record without a readable id or name may
be anybody's: while there is one, a job that is not shown is not therefore gone.
"""

from dataclasses import replace

from isthmus.api.conditions import Phase, Reason
from isthmus.backends.slurm.records import JobRecord, UnreadableJob
from isthmus.backends.slurm.states import observe, work_directory_failed
from isthmus.slurmjob.observation import SlurmJobObservation
from isthmus.slurmjob.policy.identity import tells_the_end
from isthmus.slurmjob.record import AttemptStatus

_MESSAGE_IS_FREE = frozenset({Phase.PENDING, Phase.STARTING, Phase.READY})
"""Phases whose message need not stay, as sbatch's words of an unclear submission must."""


def is_believed(observed: SlurmJobObservation, primary: JobRecord | None) -> bool:
    """Whether the attempt's best record speaks for the attempt, and its absence for an absence.

    Beside a nameless record, one that was only turned away does not, nor one of another id than the
    attempt is known by: the other may be the job that was let through. The end of one that has
    passed the gate is the end, for no other can pass.
    """
    if observed.cluster.shows_all:
        return True
    bound = observed.status.job.job_id
    if primary is None or bound not in {None, primary.job_id}:
        return False
    if observe(primary).live:
        return True
    return tells_the_end(primary) and primary.has_run and not work_directory_failed(primary)


def why(observed: SlurmJobObservation) -> tuple[Reason, str]:
    """Reason and sentence for an attempt about which nothing can be concluded."""
    if observed.unreadable:
        job = observed.unreadable[0]
        text = f"SLURM shows job {job.job_id} in a form that cannot be read ({job.problem})"
    else:
        snapshot = observed.cluster.snapshot
        nameless = () if snapshot is None else snapshot.nameless
        text = (
            f"SLURM shows records whose id and name cannot be read ({len(nameless)}, "
            f"{nameless[0] if nameless else ''}); any may be this job"
        )
    return Reason.RECORDS_UNREADABLE, f"{text}: what was known is kept"


def explained(observed: SlurmJobObservation, status: AttemptStatus) -> AttemptStatus:
    """A status that is kept, with the reason for that where its message is free."""
    if status.phase not in _MESSAGE_IS_FREE:
        return status
    return replace(status, message=why(observed)[1])


def as_unknown(job: UnreadableJob) -> JobRecord:
    """What can be told to SLURM of such a job, as a record in a state that nobody knows."""
    return JobRecord(
        job_id=job.job_id,
        name=job.name,
        state="",
        restart_count=0,
        batch_host="",
        nodes="",
        submit_time=None,
        start_time=None,
        end_time=None,
        time_limit_minutes=None,
        exit_code=0,
        partition="",
        qos="",
        reason="",
        comment="",
    )
