"""How an attempt whose object is being deleted comes to its end.

One order: out of the membership → a moment for every node to hear of it, and for the engine to
become idle (policy.drain) → TERM to the engine's main process → scancel when the grace is over. The
finalizer goes when no job of the attempt is left *and none can turn up any more*: an unclear
submission is resolved first, and its gate is closed, so that a late ghost ends before it loads a
model.
"""

from dataclasses import replace

from isthmus.api.conditions import TERMINAL, Phase, Reason
from isthmus.backends.slurm.records import JobRecord
from isthmus.backends.slurm.states import JobState, observe
from isthmus.rules.actions import RemoveFinalizer
from isthmus.rules.drain import DrainTimes, Proceed, Wait, decide, told
from isthmus.slurmjob.actions import (
    Cancel,
    CloseGate,
    ConfirmGone,
    DeleteSlice,
    SlurmJobAction,
    Terminate,
    WithdrawTunnels,
)
from isthmus.slurmjob.observation import SlurmJobObservation, SlurmJobPlan
from isthmus.slurmjob.policy import absence, submission, unreadable
from isthmus.slurmjob.policy.absence import Absence
from isthmus.slurmjob.policy.cancelling import cancel
from isthmus.slurmjob.policy.forwarding import in_rotation
from isthmus.slurmjob.policy.identity import choose, start_forgotten
from isthmus.slurmjob.record import AttemptStatus

GHOST_SECONDS = 1800.0
"""After this long no submission is still on its way: far beyond any time limit of sbatch."""
_REPEAT = 60.0
"""Seconds before the cancellation of a job whose state cannot be read is sent again."""
_SOON = 1.0
"""Seconds until the next look where only our own write is waited for."""
_MAY_SERVE = frozenset({JobState.Running, JobState.Suspended, JobState.Transient, JobState.Unknown})
"""Among them SIGNALING, which SLURM may show while it delivers our TERM. A suspended engine goes on
with its requests when it wakes, and it may have done so since the last look (seed 1895)."""


def stop(observed: SlurmJobObservation, *, now: float) -> SlurmJobPlan:
    """Plan a SlurmJob that is being deleted."""
    if not observed.has_finalizer:
        return SlurmJobPlan(status=observed.status)
    plan, tunnelled = _stop(observed, now=now), in_rotation(observed)
    if observed.slice_target is None and not tunnelled:
        return plan
    # Every node has to hear of it: that wait begins when the slice is surely gone, so with the
    # next pass, however long the deletion takes and however often it has to be tried.
    early = (Terminate, Cancel) if tunnelled else Terminate  # a slice of ours goes before scancel
    kept = tuple(action for action in plan.actions if not isinstance(action, early))
    ending = replace(plan.status.ending, draining_since=None)
    if tunnelled:
        ending = replace(ending, cancelled_at=observed.status.ending.cancelled_at)
    if kept != plan.actions:
        ending = replace(ending, terminated_at=None, drained=None, cut=None)
    out = (() if observed.slice_target is None else (DeleteSlice(),)) + _withdrawn(
        observed, now=now
    )
    return SlurmJobPlan(
        status=replace(plan.status, ending=ending), actions=out + kept, requeue_after=_SOON
    )


def _withdrawn(observed: SlurmJobObservation, *, now: float) -> tuple[SlurmJobAction, ...]:
    """What takes the worker out of rotation where its tunnel supervisors do not.

    They were told by `forward.inTraffic`. One that is dead, and has no successor that removes its
    slices, is waited for only so long; one that lives makes its slice anew, out of rotation.
    """
    since = observed.deleting_since
    patient = since is None or now - since < observed.limits.tunnel_patience
    return () if patient or not in_rotation(observed) else (WithdrawTunnels(),)


def _stop(observed: SlurmJobObservation, *, now: float) -> SlurmJobPlan:
    status = observed.status
    submitted = status.submission.started_at is not None or status.job.job_id is not None
    over = status.phase in TERMINAL
    live = bool(observed.unreadable) or any(observe(record).live for record in observed.records)
    if over and not live:
        return _done(observed, now=now, close_gate=_may_have_a_ghost(status))
    if not (observed.cluster.usable and observed.cluster.fresh):
        # Not even what was never submitted is let go: the status may be a restored one.
        return SlurmJobPlan(
            status=replace(
                _draining(status, now=now),
                reason=observed.cluster.reason,
                message=f"cannot be stopped yet: {observed.cluster.message}",
            )
        )
    if observed.unreadable:
        return _stop_unreadable(observed, now=now)
    choice = choose(records=observed.records, attempt=observed.attempt, bound=status.job.job_id)
    if not unreadable.is_believed(observed, choice.primary):
        held = _unread(observed, _draining(status, now=now))
        return SlurmJobPlan(status=held, requeue_after=5 * _SOON)
    if not submitted and not observed.records:
        return _done(observed, now=now, close_gate=False)
    if choice.primary is not None:
        return _stop_job(observed, primary=choice.primary, surplus=choice.surplus, now=now)
    return _without_record(observed, now=now)


def _unread(observed: SlurmJobObservation, status: AttemptStatus) -> AttemptStatus:
    reason, message = unreadable.why(observed)
    return replace(status, reason=reason, message=f"cannot be released yet: {message}")


def _stop_unreadable(observed: SlurmJobObservation, *, now: float) -> SlurmJobPlan:
    """End what is known by id and name alone, as a job in a state that nobody knows.

    Its object is held until the record can be read, or is gone.
    """
    status, limits = observed.status, observed.limits
    patient = replace(observed, limits=replace(limits, repeat=max(_REPEAT, limits.repeat)))
    primary = min(
        observed.unreadable, key=lambda job: (job.job_id != status.job.job_id, job.job_id)
    )
    plan = _end(patient, record=unreadable.as_unknown(primary), now=now)
    kept = replace(plan.status, job=replace(plan.status.job, state=status.job.state))
    live = [record.job_id for record in observed.records if observe(record).live]
    ids = sorted({*live, *(job.job_id for job in observed.unreadable)})
    return replace(
        plan,
        status=_unread(observed, kept),
        actions=tuple(
            replace(action, job_id=job_id)
            for action in plan.actions
            for job_id in ids
            if isinstance(action, Terminate | Cancel)
        ),
    )


def _stop_job(
    observed: SlurmJobObservation,
    *,
    primary: JobRecord,
    surplus: tuple[JobRecord, ...],
    now: float,
) -> SlurmJobPlan:
    actions: tuple[SlurmJobAction, ...] = tuple(Cancel(job_id=r.job_id) for r in surplus)
    if not observe(primary).live:
        if actions:
            return SlurmJobPlan(
                status=_draining(observed.status, now=now),
                actions=actions,
                requeue_after=observed.limits.repeat,
            )
        # A second submission may still be on its way where the first one was unclear.
        unclear = submission.is_unclear(observed.status)
        return _done(observed, now=now, close_gate=unclear or _may_have_a_ghost(observed.status))
    plan = _end(observed, record=primary, now=now)
    return replace(plan, actions=actions + plan.actions)


def _may_have_a_ghost(status: AttemptStatus) -> bool:
    """Whether a job of an earlier, unclear submission may turn up and find the gate open.

    Once a job of the attempt has started, the gate is claimed.
    """
    return (status.submission.count or 0) > 1 and status.job.start_time is None


def _end(observed: SlurmJobObservation, *, record: JobRecord, now: float) -> SlurmJobPlan:
    """The next step for a live job: wait, TERM, wait, scancel."""
    status = _draining(observed.status, now=now)
    status = replace(status, job=replace(status.job, job_id=record.job_id, state=record.state))
    limits = observed.limits
    state = observe(record)
    if state is JobState.Completing:
        return SlurmJobPlan(status=replace(status, phase=Phase.TERMINATING))
    terminated = status.ending.terminated_at
    serves = state in _MAY_SERVE or start_forgotten(status, record)
    drains = status.ever_ready and serves
    if not drains:
        return cancel(status, job_ids=(record.job_id,), repeat=limits.repeat, now=now)
    times = DrainTimes(floor=limits.deregister_delay, budget=observed.drain_timeout)
    out_since = status.ending.draining_since or now
    if terminated is None:
        decision = decide(out_since=out_since, now=now, load=observed.load, times=times)
        if isinstance(decision, Wait):
            return SlurmJobPlan(status=status, requeue_after=decision.seconds)
        return _terminate(observed, status, decision=decision, now=now)
    ends = terminated + limits.termination_grace
    if status.ending.drained == "Unknown":
        # It may still finish what nobody can see: it has its whole budget for that.
        ends = max(ends, out_since + times.floor + times.budget + limits.termination_grace)
    if now < ends:
        return SlurmJobPlan(status=status, requeue_after=ends - now)
    return cancel(status, job_ids=(record.job_id,), repeat=limits.repeat, now=now)


def _terminate(
    observed: SlurmJobObservation, status: AttemptStatus, *, decision: Proceed, now: float
) -> SlurmJobPlan:
    """TERM, and the status says how the wait for the requests ended."""
    ending = replace(
        status.ending,
        terminated_at=now,
        drained="Unknown" if decision.cut is None else "Timeout" if decision.cut else "Idle",
        cut=decision.cut,
    )
    message = told(decision, budget=observed.drain_timeout)
    return SlurmJobPlan(
        status=replace(
            status,
            ending=ending,
            message=message or status.message,
            reason=Reason.DRAIN_TIMEOUT if decision.cut else status.reason,
        ),
        actions=(Terminate(job_id=status.job.job_id or 0),),
        requeue_after=observed.limits.termination_grace,
    )


def _without_record(observed: SlurmJobObservation, *, now: float) -> SlurmJobPlan:
    """Submitted, and no snapshot shows it: prove that it is gone before letting go."""
    status = _draining(observed.status, now=now)
    never_seen = status.job.state is None
    if never_seen or submission.is_unclear(observed.status):
        since = status.submission.unknown_since
        if since is None:
            since = now
            status = replace(status, submission=replace(status.submission, unknown_since=now))
        checked = replace(observed, status=status)
        if submission.resolve(checked, now=now) is submission.Unknown.ABSENT:
            return _done(observed, now=now, close_gate=True)
        return SlurmJobPlan(
            status=status,
            requeue_after=max(1.0, since + observed.limits.submit_unknown_wait - now),
        )
    match absence.judge(observed):
        case Absence.TOO_EARLY:
            return SlurmJobPlan(status=status)
        case Absence.UNCONFIRMED:
            return SlurmJobPlan(
                status=status, actions=(ConfirmGone(job_id=status.job.job_id or 0),)
            )
        case Absence.GONE:
            return _done(observed, now=now, close_gate=False)


def _draining(status: AttemptStatus, *, now: float) -> AttemptStatus:
    before = status.ending
    found = replace(
        status,
        phase=Phase.DRAINING,
        ending=replace(before, draining_since=before.draining_since or now),
        healthy=False,
        # A status that was lost: nobody knows that it never served, so it may finish its requests.
        ever_ready=True if status.phase is None else status.ever_ready,
    )
    unread = status.reason == Reason.RECORDS_UNREADABLE  # and can be read again
    told = before.terminated_at is not None and bool(status.message) and before.drained != "Idle"
    if told and not unread:
        return found
    return replace(
        found,
        reason=Reason.DRAINING,
        message="out of rotation; the engine finishes its requests",
    )


def _done(observed: SlurmJobObservation, *, close_gate: bool, now: float) -> SlurmJobPlan:
    """Let go, where asked for behind a closed gate.

    A gate that is claimed already is fine where the claimant is known, or where complete snapshots
    that were begun after it was found so still show no job of the attempt. One that cannot be
    closed (the folder is gone) holds the attempt for as long as a ghost may take; whatever comes
    later is an orphan.
    """
    gate: tuple[SlurmJobAction, ...] = ()
    if close_gate:
        found = observed.status.gate.claimed_at
        known = any(record.has_run for record in observed.records)
        waited = found is not None and absence.enough_snapshots_since(observed.cluster, found)
        failed = observed.status.gate.failed_at
        too_late = failed is not None and now - failed >= GHOST_SECONDS
        gate = (CloseGate(sure=known or waited, may_fail=too_late),)
    return SlurmJobPlan(status=observed.status, actions=(*gate, RemoveFinalizer()))
