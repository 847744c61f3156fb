"""Which of the jobs that carry an attempt's name is the attempt.

The name is unique to one attempt, but one attempt may have been submitted twice: an sbatch without
an answer may have been accepted. The start gate lets one of them through, and the others end with
their own exit code, so what is judged here is only which job to follow and which to cancel.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from isthmus.backends.slurm.comments import parse_comment
from isthmus.backends.slurm.records import JobRecord
from isthmus.backends.slurm.states import JobState, gate_refused, observe
from isthmus.slurmjob.record import AttemptStatus


@dataclass(frozen=True, slots=True)
class Choice:
    """The job to follow, None if no record carries the name, and the ones to cancel."""

    primary: JobRecord | None
    surplus: tuple[JobRecord, ...] = ()


def choose(*, records: Sequence[JobRecord], attempt: str, bound: int | None) -> Choice:
    """Pick the job of an attempt.

    A live job goes before an ended one; one that has published the attempt's endpoint has passed
    the gate and goes before all; then a started one, the one we know already, the lowest id. Of
    ended ones, what was refused at submission or at the gate says least.

    Once the followed job has ended the attempt is over, and what only waits under its name is
    cancelled (what has started may be behind the gate and is followed); and a job that was turned
    away never ends an attempt that another job is known to be.

    A started surplus job is cancelled only when the followed one has surely passed the gate: the
    gate ends it by itself, and cancelling the wrong one would end the only engine.

    Args:
        records: with exactly the attempt's job name.
        attempt: its token.
        bound: job id that the attempt is known by, None before that.
    """
    live = [record for record in records if observe(record).live]
    followed = next((record for record in records if record.job_id == bound), None)
    only_waiting = all(observe(record) is JobState.Pending for record in live)
    if followed is not None and tells_the_end(followed) and only_waiting:
        return Choice(primary=followed, surplus=tuple(live))
    if live:
        return _choose_live(live, attempt=attempt, bound=bound)
    ended = sorted(
        (record for record in records if bound in {None, record.job_id} or tells_the_end(record)),
        key=lambda record: (
            observe(record) is JobState.Refused,
            gate_refused(record),
            record.job_id != bound,
            -record.job_id,
        ),
    )
    return Choice(primary=ended[0] if ended else None)


def tells_the_end(record: JobRecord) -> bool:
    """Whether a record tells the end of the attempt: ended, and not just turned away."""
    state = observe(record)
    return not state.live and state is not JobState.Refused and not gate_refused(record)


def _choose_live(live: Sequence[JobRecord], *, attempt: str, bound: int | None) -> Choice:
    ordered = sorted(
        live,
        key=lambda record: (
            not passed_gate(record, attempt=attempt),
            observe(record) is JobState.Pending,
            record.job_id != bound,
            record.job_id,
        ),
    )
    primary, rest = ordered[0], ordered[1:]
    sure = passed_gate(primary, attempt=attempt)
    surplus = tuple(r for r in rest if sure or observe(r) is JobState.Pending)
    return Choice(primary=primary, surplus=surplus)


def passed_gate(record: JobRecord, *, attempt: str) -> bool:
    """Whether the job has published an endpoint of this attempt, which it does behind the gate."""
    published = parse_comment(record.comment)
    return published is not None and published.attempt == attempt


def start_forgotten(status: AttemptStatus, record: JobRecord) -> bool:
    """Whether a job that had started is said to wait, though nobody requeued it.

    An old copy of the queue says so, and a slurmctld that came up with an older state: either way
    its engine may run on.
    """
    return observe(record) is JobState.Pending and status.job.start_time is not None


_ENDING = frozenset({JobState.Completing, JobState.Requeued, JobState.Blocked})
"""The end of these is the moment when somebody ended them, not that of their time limit."""


def recorded(status: AttemptStatus, *, record: JobRecord) -> AttemptStatus:
    """The status with what the record says, whatever its state means.

    The end of a job that is just ending stays as it was known: squeue gives the moment at which
    it was cancelled (22.05), and the worker would be replaced as one that comes to its time limit.
    """
    state = observe(record)
    job = replace(
        status.job,
        job_id=record.job_id,
        state=record.state,
        submit_time=record.submit_time or None,
        restart_count=record.restart_count,
    )
    if state is not JobState.Pending and record.has_run:
        job = replace(
            job,
            nodes=record.nodes or job.nodes,
            start_time=record.start_time or None,
            end_time=job.end_time if state in _ENDING else record.end_time or None,
        )
    submission = replace(status.submission, unknown_since=None, last_answer=None, same_answers=None)
    return replace(status, job=job, submission=submission)
