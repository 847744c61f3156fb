"""What the end of a job means for its attempt: the terminal phase and a sentence."""

from collections.abc import Mapping

from isthmus.api.conditions import Phase, Reason
from isthmus.api.slurmjob import SlurmJobStatus
from isthmus.backends.slurm.records import JobRecord
from isthmus.backends.slurm.states import (
    JobState,
    exit_status,
    gate_refused,
    observe,
    work_directory_failed,
)

_ENDINGS: Mapping[JobState, tuple[Phase, Reason, str]] = {
    JobState.Finished: (
        Phase.FINISHED,
        Reason.JOB_COMPLETED,
        "the engine ended by itself with exit code 0",
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


def ended(*, status: SlurmJobStatus, record: JobRecord, log: str) -> SlurmJobStatus:
    """The status of an attempt whose job is over.

    What we ended ourselves keeps the reason for which we did.

    Args:
        status: before.
        record: of a job that is not live.
        log: where its output lies, for the sentence.
    """
    if status.cancelled_at is not None:
        return status.model_copy(update={"phase": Phase.FAILED, "healthy": False})
    phase, reason, message = _ENDINGS.get(observe(record), _failed(record, log))
    return status.model_copy(
        update={"phase": phase, "reason": reason, "message": message, "healthy": False}
    )


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
