"""One attempt and one SLURM job, brought together: what to do next and what to say.

The order of the questions is the order of trust: an object being deleted stops; an attempt that is
over stays over; a record with the attempt's name is followed; without one, an attempt that was
never submitted is submitted, one whose submission is unclear is resolved, and one that was seen
and is gone needs two snapshots and a second source. While the cluster cannot be seen, or what it
says of the job cannot be read, only probes speak.
"""

from collections.abc import Mapping
from dataclasses import replace

from isthmus.api.conditions import (
    PROBED,
    TERMINAL,
    UNSUBMITTED,
    ConditionType,
    PendingClass,
    Phase,
    Reason,
)
from isthmus.backends.slurm import reasons
from isthmus.backends.slurm.records import JobRecord
from isthmus.backends.slurm.states import JobState, observe
from isthmus.rules.actions import AddFinalizer
from isthmus.rules.telling import with_problem
from isthmus.slurmjob import submitting
from isthmus.slurmjob.actions import Cancel, ConfirmGone, ReadPort, WithdrawTunnels
from isthmus.slurmjob.observation import SlurmJobObservation, SlurmJobPlan
from isthmus.slurmjob.policy import absence, blame, degraded, submission, unreadable
from isthmus.slurmjob.policy.absence import Absence
from isthmus.slurmjob.policy.cancelling import cancel
from isthmus.slurmjob.policy.clocks import not_in_the_future
from isthmus.slurmjob.policy.ending import ended
from isthmus.slurmjob.policy.forwarding import in_rotation, with_forward
from isthmus.slurmjob.policy.giving_up import end_given_up, give_up
from isthmus.slurmjob.policy.identity import choose, recorded, start_forgotten
from isthmus.slurmjob.policy.membership import with_membership
from isthmus.slurmjob.policy.readiness import (
    SILENT,
    judged,
    judged_at_all,
    located,
    mistaken,
    silent,
    startup_left,
)
from isthmus.slurmjob.policy.stopping import stop
from isthmus.slurmjob.record import AttemptStatus
from isthmus.slurmjob.submitting import SOON

_PENDING_REASONS: Mapping[PendingClass, Reason] = {
    PendingClass.RESOURCES: Reason.PENDING_RESOURCES,
    PendingClass.QUOTA: Reason.PENDING_QUOTA,
    PendingClass.HELD: Reason.PENDING_HELD,
    PendingClass.NEVER: Reason.PENDING_NEVER,
}

_UNTOLD = (
    ". If the engine did listen, see the job's log: neither `scontrol update JobId={} Comment=...` "
    "as the account nor the file `port` in its run folder has its port"
)


def plan_slurm_job(observed: SlurmJobObservation, *, now: float) -> SlurmJobPlan:
    """Plan one SlurmJob.

    Args:
        observed: everything known of it.
        now: wall clock of the operator, epoch seconds.
    """
    status = not_in_the_future(observed.status, now=now)
    if status is not observed.status:
        observed = replace(observed, status=status)
    plan = with_forward(observed, _plan(observed, now=now), now=now)
    conditions = with_problem(
        plan.status.conditions,
        ConditionType.READABLE,
        reason=Reason.INVALID_SPEC,
        problem=observed.unread,
        now=now,
    )
    if conditions is plan.status.conditions:
        return plan
    return replace(plan, status=replace(plan.status, conditions=conditions))


def _plan(observed: SlurmJobObservation, *, now: float) -> SlurmJobPlan:
    if observed.deleting:
        return stop(observed, now=now)
    if not observed.has_finalizer:
        return SlurmJobPlan(status=observed.status, actions=(AddFinalizer(),), requeue_after=0)
    if observed.status.phase in TERMINAL:
        return with_membership(observed, _over(observed, now=now))
    return with_membership(observed, _advance(observed, now=now))


def _over(observed: SlurmJobObservation, *, now: float) -> SlurmJobPlan:
    """An attempt that has ended stays so: a job of it that turns up later is cancelled."""
    status, cluster = observed.status, observed.cluster
    ghosts = [record for record in observed.records if observe(record).live]
    if not (ghosts and cluster.usable and cluster.fresh):
        return SlurmJobPlan(status=status)
    if in_rotation(observed):  # a status that was wiped: its supervisors still send it requests
        since = status.ending.finished_at
        patient = since is not None and now - since < observed.limits.tunnel_patience
        withdrawn = () if patient else (WithdrawTunnels(),)
        return SlurmJobPlan(status=status, actions=withdrawn, requeue_after=SOON)
    ids = [record.job_id for record in ghosts]
    return cancel(status, job_ids=ids, repeat=observed.limits.repeat, now=now)


def _advance(observed: SlurmJobObservation, *, now: float) -> SlurmJobPlan:
    cluster = observed.cluster
    if not (cluster.usable and cluster.fresh):
        status = _unseen(observed, reason=cluster.reason, message=cluster.message, now=now)
        return SlurmJobPlan(status=status)
    if observed.unreadable:
        return _unread(observed, now=now)
    choice = choose(
        records=observed.records, attempt=observed.attempt, bound=observed.status.job.job_id
    )
    if not unreadable.is_believed(observed, choice.primary):
        return _unread(observed, now=now)
    if choice.primary is not None:
        plan = _follow(observed, record=choice.primary, now=now)
        cancels = tuple(Cancel(job_id=record.job_id) for record in choice.surplus)
        return replace(plan, actions=plan.actions + cancels)
    if submission.is_unclear(observed.status):
        return submitting.resolve(observed, now=now)
    if observed.status.job.job_id is None:
        return submitting.submit(observed, now=now)
    return _missing(observed, now=now)


def _unread(observed: SlurmJobObservation, *, now: float) -> SlurmJobPlan:
    """SLURM's answer does not say how the job is: as unseen, with the cause."""
    reason, message = unreadable.why(observed)
    unseen = _unseen(observed, reason=reason, message=message, now=now)
    status = unreadable.explained(observed, unseen)
    # A record of this name that changes is told; one that nobody could name is not.
    return SlurmJobPlan(status=status, requeue_after=None if observed.unreadable else SOON)


def _unseen(
    observed: SlurmJobObservation, *, reason: Reason, message: str, now: float
) -> AttemptStatus:
    """The status while the cluster cannot be seen: what was, but probes go on."""
    status = observed.status
    if status.phase == Phase.SUBMITTING:
        return replace(status, phase=Phase.SUBMIT_UNKNOWN)
    if status.phase is None and reason == Reason.NOT_OBSERVED_YET:
        return status  # in seconds either it or a failure is seen: not worth a write for each job
    if status.phase in UNSUBMITTED:
        return replace(status, phase=Phase.WAITING, reason=reason, message=message)
    return _probed(observed, status, now=now)


def _probed(observed: SlurmJobObservation, status: AttemptStatus, *, now: float) -> AttemptStatus:
    """The status with what the probes say, which need no SLURM."""
    if status.phase not in PROBED or not status.host:
        return status
    return judged(observed, status=status, now=now)


def _missing(observed: SlurmJobObservation, *, now: float) -> SlurmJobPlan:
    """A job that has an id and stands in no snapshot."""
    status = _probed(observed, observed.status, now=now)
    proof = absence.judge(observed)
    if proof is Absence.TOO_EARLY:
        return SlurmJobPlan(status=status, requeue_after=SOON)
    if status.job.state is None:
        return submitting.doubt(
            observed,
            f"sbatch returned job ID {status.job.job_id}, but squeue has never listed it",
            now=now,
        )
    if observed.probe_healthy and status.phase == Phase.READY:
        message = "squeue does not list the job, but its engine answers as this attempt"
        return SlurmJobPlan(status=replace(status, message=message), requeue_after=SOON)
    if proof is Absence.UNCONFIRMED:
        return SlurmJobPlan(
            status=status,
            actions=(ConfirmGone(job_id=status.job.job_id or 0),),
            requeue_after=SOON,
        )
    gone = replace(status, healthy=False, ending=replace(status.ending, finished_at=now))
    if status.ending.cancelled_at is not None:
        # We gave it up, and SLURM forgot it before a snapshot showed its end.
        return SlurmJobPlan(status=replace(gone, phase=Phase.FAILED))
    return SlurmJobPlan(
        status=replace(
            gone,
            phase=Phase.FINISHED,
            reason=Reason.JOB_VANISHED,
            message="SLURM no longer knows the job, and no record shows how it ended",
        )
    )


def _follow(observed: SlurmJobObservation, *, record: JobRecord, now: float) -> SlurmJobPlan:
    """The attempt has this job: take over what SLURM says of it."""
    state = observe(record)
    status = recorded(observed.status, record=record)
    if not state.live:
        log = f"{observed.work_directory} (job {record.job_id} on {record.nodes or 'no node'})"
        finished = status.ending.finished_at or record.end_time or now
        over = ended(status=status, record=record, log=log)
        return SlurmJobPlan(status=replace(over, ending=replace(over.ending, finished_at=finished)))
    if status.ending.cancelled_at is not None:
        return end_given_up(status, observed, now=now)
    if state is JobState.Pending:
        answers = status.phase == Phase.READY and observed.probe_healthy
        if answers and start_forgotten(observed.status, record):
            return _told_to_wait(status)
        return _pending(observed, status=status, record=record, now=now)
    if state in {JobState.Requeued, JobState.Blocked}:
        message = "SLURM put the job back into the queue; this attempt is over"
        return give_up(
            observed, status, reason=Reason.JOB_REQUEUED, message=message, record=record, now=now
        )
    if state is JobState.Suspended:
        return SlurmJobPlan(
            status=replace(
                status,
                phase=Phase.DEGRADED,
                healthy=False,
                degraded_since=None,
                probes_failed_since=None,
                reason=Reason.JOB_SUSPENDED,
                message="SLURM suspended the job; it may come back",
            )
        )
    if state is JobState.Completing:
        return SlurmJobPlan(
            status=replace(
                status,
                phase=Phase.TERMINATING,
                healthy=False,
                reason=Reason.JOB_TERMINATING,
                message="the job is ending and may still hold its node",
            )
        )
    if state in {JobState.Transient, JobState.Unknown} and status.phase in {
        *PROBED,
        Phase.TERMINATING,
    }:
        return SlurmJobPlan(status=_probed(observed, status, now=now))
    return _running(observed, status=status, record=record, now=now)


def _told_to_wait(status: AttemptStatus) -> SlurmJobPlan:
    """As for a job that SLURM does not list: what the engine itself says goes before."""
    message = (
        "squeue lists the job as pending, but its engine answers as this attempt; waiting for "
        "squeue to catch up"
    )
    return SlurmJobPlan(status=replace(status, message=message), requeue_after=SOON)


def _pending(
    observed: SlurmJobObservation, *, status: AttemptStatus, record: JobRecord, now: float
) -> SlurmJobPlan:
    kind = reasons.classify(record.reason)
    word = reasons.spoken(record.reason)
    reason = _PENDING_REASONS[kind]
    message = f"{word}: waits for {reasons.unblocked_by(record.reason)}"
    message += blame.said_of(status.submission.excluded_nodes)
    again = None
    if kind is PendingClass.NEVER:
        snapshot = observed.cluster.snapshot
        waited = (
            snapshot.cluster_time - record.submit_time if snapshot and record.submit_time else 0
        )
        message = f"{word}: SLURM cannot start this job as it is; correct the pool's slurm fields"
        left = reasons.never_after(record.reason) - waited
        if left <= 0:
            return give_up(observed, status, reason=reason, message=message, record=record, now=now)
        again = max(1.0, left)
    return SlurmJobPlan(
        status=replace(status, phase=Phase.PENDING, reason=reason, message=message),
        requeue_after=again,
    )


def _running(
    observed: SlurmJobObservation, *, status: AttemptStatus, record: JobRecord, now: float
) -> SlurmJobPlan:
    found = located(observed, status=status, record=record)
    place, before = (found.host, found.port), (status.host, status.port)
    restored = found.host is not None and found.phase == Phase.READY and status.host is None
    if not restored and (found.host is None or place != before):
        # What the probes said was about another address, or about one that is not known any more.
        observed = replace(observed, probe_healthy=None, probe_reason="", probe_message="")
        found = replace(found, phase=Phase.STARTING)
    status = judged(observed, status=found, now=now)
    if mistaken(observed, status):
        return _mistaken(observed, status=status, record=record, now=now)
    if status.phase == Phase.DEGRADED:
        status = degraded.marked(observed, status, now=now)
        return _degraded(observed, status=status, record=record, now=now)
    if status.phase != Phase.STARTING:
        return SlurmJobPlan(status=status)
    left = startup_left(observed, record=record)
    if left is not None and left < 0 and judged_at_all(observed, status=status, now=now):
        limit = f"{observed.endpoint.startup_timeout:.0f} s"
        message = f"not healthy within health.startupTimeout ({limit}); {status.message}"
        if status.port is None:
            message += _UNTOLD.format(record.job_id)
        return give_up(
            observed,
            status,
            reason=Reason.STARTUP_TIMEOUT,
            message=message,
            record=record,
            now=now,
        )
    again = None if left is None else max(SOON, left)
    snapshot = observed.cluster.snapshot
    if snapshot is None or not silent(status, record=record, cluster_time=snapshot.cluster_time):
        return SlurmJobPlan(status=status, requeue_after=again)
    return SlurmJobPlan(
        status=status,
        actions=(ReadPort(job_id=record.job_id),),
        requeue_after=SILENT if again is None else min(again, SILENT),
    )


def _mistaken(
    observed: SlurmJobObservation, *, status: AttemptStatus, record: JobRecord, now: float
) -> SlurmJobPlan:
    """Somebody else answers where the job's engine should: replaced at once.

    He was sent the attempt's key by the question that found him out, so no other engine of the
    attempt may ever be asked with it.
    """
    if observed.probe_age > degraded.FRESH:
        return SlurmJobPlan(status=status, requeue_after=degraded.LOOK_EVERY, probe_now=True)
    message = f"another engine answers at the address of the job: {status.message}"
    return give_up(
        observed, status, reason=Reason.IDENTITY_MISMATCH, message=message, record=record, now=now
    )


def _degraded(
    observed: SlurmJobObservation, *, status: AttemptStatus, record: JobRecord, now: float
) -> SlurmJobPlan:
    left = degraded.time_left(observed, status, now=now)
    if left is None or left > 0:
        return SlurmJobPlan(status=status, requeue_after=None if left is None else max(SOON, left))
    if observed.probe_age > degraded.FRESH:
        return SlurmJobPlan(status=status, requeue_after=degraded.LOOK_EVERY, probe_now=True)
    limit = f"{observed.endpoint.startup_timeout:.0f} s"
    message = f"not healthy again within health.startupTimeout ({limit}); {status.message}"
    return give_up(
        observed, status, reason=Reason.PROBE_FAILED, message=message, record=record, now=now
    )
