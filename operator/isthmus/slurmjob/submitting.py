"""One attempt's way to an sbatch, and what its answer means for it.

Apart from `slurmjob.py`, which asks whether there is a job: this is done while there is none. When
it may be done is `policy/submission.py`.
"""

from isthmus.api.conditions import Phase, Reason
from isthmus.api.slurmjob import SlurmJobStatus
from isthmus.api.times import rfc3339
from isthmus.backends.slurm.records import NotSent, Refused, SubmitOutcome, Submitted, Unclear
from isthmus.slurmjob.actions import Submit
from isthmus.slurmjob.observation import Limits, SlurmJobObservation, SlurmJobPlan
from isthmus.slurmjob.policy import blame, submission

SOON = 5.0
"""Seconds until the next look where what is waited for is a snapshot, which may change nothing."""


def submit(observed: SlurmJobObservation, *, now: float) -> SlurmJobPlan:
    """Submit an attempt of which there is no job, once nothing holds it back."""
    held = submission.held_back_by(observed)
    ends = submission.not_before(observed)
    if not held and now < ends:
        return SlurmJobPlan(status=_pausing(observed.status, ends), requeue_after=ends - now)
    waiting = observed.status.model_copy(
        update={
            "phase": Phase.WAITING,
            "reason": Reason.WAITING_TO_SUBMIT,
            "message": held or "waits for its turn: a few submissions of a cluster run at a time",
        }
    )
    if held:
        return SlurmJobPlan(status=waiting, requeue_after=SOON)
    before = waiting.model_copy(
        update={
            "phase": Phase.SUBMITTING,
            "reason": Reason.SUBMITTING,
            "message": "",
            "submit_started_at": rfc3339(now),
            "submissions": (waiting.submissions or 0) + 1,
            "unknown_since": None,
            "work_directory": observed.work_directory or None,
            "excluded_nodes": observed.excluded_nodes,
        }
    )
    return SlurmJobPlan(status=waiting, actions=(Submit(before=before),))


def _pausing(status: SlurmJobStatus, ends: float) -> SlurmJobStatus:
    """Until the next try; what the last one said stands there already, but after an outage."""
    if status.reason in {Reason.SUBMIT_UNKNOWN, Reason.NOT_SUBMITTED}:
        return status
    return status.model_copy(
        update={
            "phase": Phase.WAITING,
            "reason": Reason.WAITING_TO_SUBMIT,
            "message": f"the last try made no job; it is tried again at {rfc3339(ends)}",
        }
    )


def after_submission(
    status: SlurmJobStatus, *, outcome: SubmitOutcome, limits: Limits, now: float
) -> SlurmJobStatus:
    """The status once sbatch has ended, from the one that was written before it began."""
    if isinstance(outcome, NotSent):
        return _not_sent(status, outcome, limits=limits, now=now)
    status = status.model_copy(update={"unsent": None, "unsent_at": None})
    if isinstance(outcome, Submitted):
        without = blame.said_of(status.excluded_nodes)
        return status.model_copy(
            update={
                "phase": Phase.PENDING,
                "job_id": outcome.job_id,
                "reason": Reason.PENDING_RESOURCES,
                "message": f"submitted; not seen in the queue yet{without}",
            }
        )
    if isinstance(outcome, Refused):
        return _refused(status, f"{outcome.reason}: {outcome.message}", now=now)
    return _unclear(status, outcome, limits=limits, now=now)


def _not_sent(
    status: SlurmJobStatus, outcome: NotSent, *, limits: Limits, now: float
) -> SlurmJobStatus:
    tries = (status.unsent or 0) + 1
    again = rfc3339(now + submission.unsent_pause(tries, limits=limits))
    return status.model_copy(
        update={
            "phase": Phase.WAITING,
            "reason": Reason.NOT_SUBMITTED,
            "message": f"nothing was sent to the cluster, so there is no job ({outcome.message}); "
            f"tried again at {again}",
            "submissions": (status.submissions or 1) - 1 or None,
            "unsent": tries,
            "unsent_at": rfc3339(now),
        }
    )


def _unclear(
    status: SlurmJobStatus, outcome: Unclear, *, limits: Limits, now: float
) -> SlurmJobStatus:
    told = submission.answered(status, words=outcome.words)
    again = rfc3339(now + submission.unclear_pause(status.submissions, limits=limits))
    then = f"not submitted again before {again}"
    if submission.is_refused(told):
        then = f"it was so {told.same_answers} times, which is a refusal if no job turns up"
    return told.model_copy(
        update={
            "phase": Phase.SUBMIT_UNKNOWN,
            "reason": Reason.SUBMIT_UNKNOWN,
            "message": f"sbatch gave no clear answer ({outcome.message}); looking for the job, "
            f"{then}",
            "unknown_since": rfc3339(now),
        }
    )


def _refused(status: SlurmJobStatus, message: str, *, now: float) -> SlurmJobStatus:
    return status.model_copy(
        update={
            "phase": Phase.FAILED,
            "reason": Reason.SUBMIT_REFUSED,
            "message": message,
            "finished_at": rfc3339(now),
        }
    )


def resolve(observed: SlurmJobObservation, *, now: float) -> SlurmJobPlan:
    """Find out about an unclear submission whose name the last snapshot does not show."""
    status = observed.status
    if status.phase == Phase.SUBMITTING or status.unknown_since is None:
        # Found at the begin of a pass: the pass that wrote it was interrupted around sbatch.
        return doubt(observed, "the operator was interrupted while it submitted", now=now)
    if submission.resolve(observed, now=now) is submission.Unknown.WAIT:
        left = submission.looked_for(observed, now=now)
        return SlurmJobPlan(status=status, requeue_after=max(1.0, left))
    if submission.is_refused(status):
        message = (
            f"RepeatedAnswer: {status.same_answers} submissions in a row had the same answer, and "
            f"none of them made a job: {status.last_answer}"
        )
        return SlurmJobPlan(status=_refused(status, message, now=now))
    return submit(observed, now=now)


def doubt(observed: SlurmJobObservation, why: str, *, now: float) -> SlurmJobPlan:
    """A submission of which only snapshots can tell whether it made a job."""
    status = submission.answered(observed.status, words="").model_copy(
        update={
            "phase": Phase.SUBMIT_UNKNOWN,
            "reason": Reason.SUBMIT_UNKNOWN,
            "message": f"{why}; looking for the job before anything is submitted again",
            "unknown_since": rfc3339(now),
        }
    )
    return SlurmJobPlan(status=status, requeue_after=observed.limits.submit_unknown_wait)
