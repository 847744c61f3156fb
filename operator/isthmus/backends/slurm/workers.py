"""SlurmJob objects as the planner's workers. Pure: statuses in, records out."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from isthmus.api import names
from isthmus.api.conditions import ConditionType, PendingClass, Phase, Reason
from isthmus.api.slurmjob import SlurmJob, SlurmJobStatus
from isthmus.api.times import epoch
from isthmus.backends.base import (
    WAITING_FOR_PLACE,
    Draining,
    Load,
    Pending,
    Worker,
    WorkerGroup,
)

_CLASSES: Mapping[str, PendingClass] = {
    Reason.PENDING_RESOURCES: PendingClass.RESOURCES,
    Reason.PENDING_QUOTA: PendingClass.QUOTA,
    Reason.PENDING_HELD: PendingClass.HELD,
    Reason.PENDING_NEVER: PendingClass.NEVER,
    Reason.SUBMIT_REFUSED: PendingClass.NEVER,
    Reason.JOB_STARTING: PendingClass.STARTUP,
    Reason.WAITING_TO_SUBMIT: PendingClass.SUBMISSION,
    Reason.SUBMITTING: PendingClass.SUBMISSION,
    Reason.SUBMIT_UNKNOWN: PendingClass.SUBMISSION,
    Reason.NOT_SUBMITTED: PendingClass.SUBMISSION,
    Reason.JOB_TIME_LIMIT: PendingClass.STARTUP,
    Reason.JOB_PREEMPTED: PendingClass.RESOURCES,
    Reason.TUNNEL_DOWN: PendingClass.UNREACHABLE,
    Reason.TUNNEL_AWAITED: PendingClass.UNREACHABLE,
}
_BY_PHASE: Mapping[str, PendingClass] = {
    Phase.WAITING: PendingClass.SUBMISSION,
    Phase.SUBMITTING: PendingClass.SUBMISSION,
    Phase.SUBMIT_UNKNOWN: PendingClass.SUBMISSION,
    Phase.PENDING: PendingClass.RESOURCES,
    Phase.STARTING: PendingClass.STARTUP,
}


def groups(
    *,
    jobs: Iterable[SlurmJob],
    members: frozenset[str],
    load: Callable[[str], Load | None] = lambda _: None,
    started: Callable[[SlurmJob], bool] = lambda _: False,
) -> tuple[WorkerGroup, ...]:
    """All worker groups of one ModelDeployment on SLURM.

    Args:
        jobs: its SlurmJobs.
        members: uids of the SlurmJobs that stand in the membership of its Service.
        load: what the metrics of the SlurmJob of a name say, None where nobody asks.
        started: whether the last look at its cluster shows that its job has a place by now, which
            its status need not have taken in yet.
    """
    found: dict[tuple[str, str], list[Worker]] = {}
    for job in jobs:
        found.setdefault((job.spec.pool, job.spec.revision), []).append(
            _placed(worker(job, members=members, load=load(job.metadata.name)), job, started)
        )
    return tuple(
        WorkerGroup(
            pool=pool,
            backend="slurm",
            revision=revision,
            wanted=sum(worker.live for worker in workers),
            workers=tuple(sorted(workers, key=lambda worker: (worker.slot, worker.name))),
        )
        for (pool, revision), workers in sorted(found.items())
    )


def _placed(found: Worker, job: SlurmJob, started: Callable[[SlurmJob], bool]) -> Worker:
    """The worker as one that starts, if its job has got the place that its status waits for."""
    waits = found.pending is not None and found.pending.pending_class in WAITING_FOR_PLACE
    if found.pending is None or not waits or not started(job):
        return found
    return replace(found, pending=replace(found.pending, pending_class=PendingClass.STARTUP))


def worker(job: SlurmJob, *, members: frozenset[str], load: Load | None = None) -> Worker:
    """One attempt as a worker."""
    status = job.status or SlurmJobStatus()
    phase = Phase(status.phase) if status.phase is not None else Phase.WAITING
    stopping = job.metadata.deleting
    ready = phase is Phase.READY and not stopping
    member = job.metadata.uid in members
    return Worker(
        name=job.metadata.name,
        uid=job.metadata.uid,
        pool=job.spec.pool,
        backend="slurm",
        revision=job.spec.revision,
        phase=phase,
        ready=ready,
        in_rotation=member,
        # A member carries traffic, even if its status does not say so yet or was wiped.
        serving=(member and phase in {Phase.WAITING, Phase.STARTING})
        or (phase in {Phase.READY, Phase.DEGRADED} and bool(status.ever_ready)),
        stopping=stopping,
        failed=phase.terminal,
        slot=job.spec.slot,
        job_id=status.job_id,
        node=status.nodes,
        url=status.url,
        tunnel=_tunnel(status),
        healthy=status.healthy,
        started_at=status.start_time,
        ends_at=status.end_time,
        finished_at=epoch(status.finished_at),
        pending=None if ready or stopping else _pending(status, phase),
        draining=_draining(status) if stopping else None,
        load=load,
        shares_key=names.LABEL_KEY in job.metadata.labels
        and names.ANNOTATION_KEY_SOURCE not in job.metadata.annotations,
        silent_since=epoch(status.probes_failed_since) if phase is Phase.DEGRADED else None,
        problem=_problem(status),
        replaces=job.metadata.annotations.get(names.ANNOTATION_REPLACES),
    )


def _problem(status: SlurmJobStatus) -> str:
    kind = ConditionType.ACTIONS_SUCCEED
    found = next((one for one in status.conditions if one.type == kind), None)
    return "" if found is None else f"{found.message} (since {found.last_transition_time})"


def _tunnel(status: SlurmJobStatus) -> str | None:
    """Up or Down for a worker that needs its forward now, None also while that is being made."""
    found = next((c for c in status.conditions if c.type == ConditionType.TUNNEL_UP), None)
    if found is None or found.status == "Unknown":
        return None
    return "Up" if found.status == "True" else "Down"


def _draining(status: SlurmJobStatus) -> Draining | None:
    since = epoch(status.draining_since)
    if since is None:
        return None
    return Draining(since=since, released_at=epoch(status.terminated_at), cut=status.cut)


def _pending(status: SlurmJobStatus, phase: Phase) -> Pending:
    kind = _CLASSES.get(status.reason or "") or _BY_PHASE.get(phase, PendingClass.FAILING)
    if phase == Phase.PENDING and status.state is None:
        kind = PendingClass.SUBMISSION  # not seen in the queue yet: it need not wait for a place
    moments = (status.submit_time, status.submit_started_at)
    return Pending(
        pending_class=kind,
        reason=status.reason or phase,
        message=status.message or "",
        since=next((epoch(moment) for moment in moments if moment), None),
    )
