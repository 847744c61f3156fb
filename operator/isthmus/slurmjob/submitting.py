"""One attempt's way to an sbatch, and what its answer means for it.

Apart from `slurmjob.py`, which asks whether there is a job: this is done while there is none. When
it may be done is `policy/submission.py`.
"""

from dataclasses import replace

from isthmus.api.conditions import Phase, Reason
from isthmus.api.times import rfc3339
from isthmus.backends.slurm.records import NotSent, Refused, SubmitOutcome, Submitted, Unclear
from isthmus.slurmjob.actions import Submit
from isthmus.slurmjob.observation import Limits, SlurmJobObservation, SlurmJobPlan
from isthmus.slurmjob.policy import blame, submission
from isthmus.slurmjob.record import AttemptStatus

SOON = 5.0
"""Seconds until the next look where what is waited for is a snapshot, which may change nothing."""


def submit(observed: SlurmJobObservation, *, now: float) -> SlurmJobPlan:
    """Submit an attempt of which there is no job, once nothing holds it back."""
    held = submission.held_back_by(observed)
    ends = submission.not_before(observed)
    if not held and now < ends:
        return SlurmJobPlan(status=_pausing(observed.status, ends), requeue_after=ends - now)
    waiting = replace(
        observed.status,
        phase=Phase.WAITING,
        reason=Reason.WAITING_TO_SUBMIT,
        message=held or "waits for its turn: a few submissions of a cluster run at a time",
    )
    if held:
        return SlurmJobPlan(status=waiting, requeue_after=SOON)
    tried = waiting.submission
    before = replace(
        waiting,
        phase=Phase.SUBMITTING,
        reason=Reason.SUBMITTING,
        message="",
        submission=replace(
            tried,
            started_at=now,
            count=(tried.count or 0) + 1,
            unknown_since=None,
            work_directory=observed.work_directory or None,
            excluded_nodes=observed.excluded_nodes,
        ),
    )
    return SlurmJobPlan(status=waiting, actions=(Submit(before=before),))


def _pausing(status: AttemptStatus, ends: float) -> AttemptStatus:
    """Until the next try; what the last one said stands there already, but after an outage."""
    if status.reason in {Reason.SUBMIT_UNKNOWN, Reason.NOT_SUBMITTED}:
        return status
    return replace(
        status,
        phase=Phase.WAITING,
        reason=Reason.WAITING_TO_SUBMIT,
        message=f"the last try made no job; it is tried again at {rfc3339(ends)}",
    )


def after_submission(
    status: AttemptStatus, *, outcome: SubmitOutcome, limits: Limits, now: float
) -> AttemptStatus:
    """The status once sbatch has ended, from the one that was written before it began."""
    if isinstance(outcome, NotSent):
        return _not_sent(status, outcome, limits=limits, now=now)
    status = replace(status, submission=replace(status.submission, unsent=None, unsent_at=None))
    if isinstance(outcome, Submitted):
        without = blame.said_of(status.submission.excluded_nodes)
        return replace(
            status,
            phase=Phase.PENDING,
            job=replace(status.job, job_id=outcome.job_id),
            reason=Reason.PENDING_RESOURCES,
            message=f"submitted; not seen in the queue yet{without}",
        )
    if isinstance(outcome, Refused):
        return _refused(status, f"{outcome.reason}: {outcome.message}", now=now)
    return _unclear(status, outcome, limits=limits, now=now)


def _not_sent(
    status: AttemptStatus, outcome: NotSent, *, limits: Limits, now: float
) -> AttemptStatus:
    before = status.submission
    tries = (before.unsent or 0) + 1
    again = rfc3339(now + submission.unsent_pause(tries, limits=limits))
    return replace(
        status,
        phase=Phase.WAITING,
        reason=Reason.NOT_SUBMITTED,
        message=f"nothing was sent to the cluster, so there is no job ({outcome.message}); "
        f"tried again at {again}",
        submission=replace(
            before, count=(before.count or 1) - 1 or None, unsent=tries, unsent_at=now
        ),
    )


def _unclear(
    status: AttemptStatus, outcome: Unclear, *, limits: Limits, now: float
) -> AttemptStatus:
    told = submission.answered(status, words=outcome.words)
    again = rfc3339(now + submission.unclear_pause(status.submission.count, limits=limits))
    then = f"not submitted again before {again}"
    if submission.is_refused(told):
        then = (
            f"it was so {told.submission.same_answers} times, which is a refusal if no job turns up"
        )
    return replace(
        told,
        phase=Phase.SUBMIT_UNKNOWN,
        reason=Reason.SUBMIT_UNKNOWN,
        message=f"sbatch gave no clear answer ({outcome.message}); looking for the job, {then}",
        submission=replace(told.submission, unknown_since=now),
    )


def _refused(status: AttemptStatus, message: str, *, now: float) -> AttemptStatus:
    return replace(
        status,
        phase=Phase.FAILED,
        reason=Reason.SUBMIT_REFUSED,
        message=message,
        ending=replace(status.ending, finished_at=now),
    )


def resolve(observed: SlurmJobObservation, *, now: float) -> SlurmJobPlan:
    """Find out about an unclear submission whose name the last snapshot does not show."""
    status = observed.status
    if status.phase == Phase.SUBMITTING or status.submission.unknown_since is None:
        # Found at the begin of a pass: the pass that wrote it was interrupted around sbatch.
        return doubt(observed, "the operator was interrupted while it submitted", now=now)
    if submission.resolve(observed, now=now) is submission.Unknown.WAIT:
        left = submission.looked_for(observed, now=now)
        return SlurmJobPlan(status=status, requeue_after=max(1.0, left))
    if submission.is_refused(status):
        tried = status.submission
        message = (
            f"RepeatedAnswer: {tried.same_answers} submissions in a row had the same answer, and "
            f"none of them made a job: {tried.last_answer}"
        )
        return SlurmJobPlan(status=_refused(status, message, now=now))
    return submit(observed, now=now)


def doubt(observed: SlurmJobObservation, why: str, *, now: float) -> SlurmJobPlan:
    """A submission of which only snapshots can tell whether it made a job."""
    before = submission.answered(observed.status, words="")
    status = replace(
        before,
        phase=Phase.SUBMIT_UNKNOWN,
        reason=Reason.SUBMIT_UNKNOWN,
        message=f"{why}; looking for the job before anything is submitted again",
        submission=replace(before.submission, unknown_since=now),
    )
    return SlurmJobPlan(status=status, requeue_after=observed.limits.submit_unknown_wait)
