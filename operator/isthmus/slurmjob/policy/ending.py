"""What the end of a job means for its attempt: the terminal phase and a sentence."""

from collections.abc import Mapping
from dataclasses import replace

from isthmus.api.conditions import Phase, Reason
from isthmus.backends.slurm.options import TERM_LEAD_SECONDS
from isthmus.backends.slurm.records import JobRecord
from isthmus.backends.slurm.states import (
    JobState,
    exit_status,
    gate_refused,
    observe,
    work_directory_failed,
)
from isthmus.slurmjob.record import AttemptStatus

_ENDINGS: Mapping[JobState, tuple[Phase, Reason, str]] = {
    JobState.Finished: (
        Phase.FINISHED,
        Reason.JOB_COMPLETED,
        "the engine ended with exit code 0, which a server should not",
    ),
    JobState.Cancelled: (
        Phase.FINISHED,
        Reason.JOB_CANCELLED,
        "the job was cancelled by somebody else; it is replaced",
    ),
    JobState.Refused: (
        Phase.FAILED,
        Reason.SUBMIT_REFUSED,
        "SLURM refused the job's configuration (BadConstraints): correct the pool's worker, "
        "partitions or sbatchOptions",
    ),
    JobState.Expired: (
        Phase.EXPIRED,
        Reason.JOB_TIME_LIMIT,
        "the job reached its time limit; it is replaced",
    ),
    JobState.NodeFault: (
        Phase.NODE_FAULT,
        Reason.JOB_NODE_FAILED,
        "a node of the job failed; it is replaced",
    ),
    JobState.Preempted: (
        Phase.PREEMPTED,
        Reason.JOB_PREEMPTED,
        "a job of higher priority took the nodes; it is replaced",
    ),
    JobState.OutOfMemory: (
        Phase.FAILED,
        Reason.JOB_OUT_OF_MEMORY,
        "SLURM ended the job for its memory: raise worker.memory",
    ),
}


def ended(*, status: AttemptStatus, record: JobRecord, log: str) -> AttemptStatus:
    """The status of an attempt whose job is over.

    What we ended ourselves keeps the reason for which we did.

    Args:
        status: before.
        record: of a job that is not live.
        log: where its output lies, for the sentence.
    """
    if status.ending.cancelled_at is not None:
        return replace(status, phase=Phase.FAILED, healthy=False)
    state = observe(record)
    if state in {JobState.Finished, JobState.Failed} and ended_for_time(record):
        state = JobState.Expired
    phase, reason, message = _ENDINGS.get(state, _failed(record, log))
    return replace(status, phase=phase, reason=reason, message=message, healthy=False)


def ended_for_time(record: JobRecord) -> bool:
    """Whether a job ended so close to its granted end that its own timer had ended the engine.

    The batch script sends TERM that long before the end (at most half of what was granted), and an
    engine that drains then ends by itself: SLURM calls it COMPLETED, and it is no fault of the
    worker's. A failure of its own within this time is taken for the same; the next attempt shows.
    """
    if record.start_time is None or record.end_time is None or record.time_limit_minutes is None:
        return False
    granted = record.time_limit_minutes * 60
    return record.end_time - record.start_time >= granted - min(TERM_LEAD_SECONDS, granted / 2)


def _failed(record: JobRecord, log: str) -> tuple[Phase, Reason, str]:
    if gate_refused(record):
        return (
            Phase.FAILED,
            Reason.JOB_REQUEUED,
            "a second start of this attempt was turned away at its gate; a new attempt is made",
        )
    if work_directory_failed(record):
        return (
            Phase.FAILED,
            Reason.WORK_DIRECTORY_UNUSABLE,
            "the job could not write to files.workDirectory of the SlurmCluster",
        )
    code = exit_status(record)
    hint = ": the engine refuses its arguments, correct engine.args" if code == 2 else ""
    return Phase.FAILED, Reason.JOB_FAILED, f"exit code {code}{hint}; its log is under {log}"
