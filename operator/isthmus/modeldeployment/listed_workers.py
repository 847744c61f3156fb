"""The workers that the status of a ModelDeployment lists, one by one."""

from collections.abc import Sequence

from isthmus.api.modeldeployment_status import (
    MAX_LISTED_WORKERS,
    DisplacedStatus,
    DrainingStatus,
    WorkerStatus,
)
from isthmus.api.texts import cut
from isthmus.api.times import rfc3339
from isthmus.backends.base import Worker
from isthmus.modeldeployment.observation import ModelDeploymentObservation
from isthmus.modeldeployment.policy.displacement.base import Displacement
from isthmus.rules.drain import Proceed, told

_MESSAGE_LIMIT = 1000


def shown(observed: ModelDeploymentObservation) -> list[Worker]:
    """All workers that have not ended, in order."""
    found = [worker for group in observed.groups for worker in group.workers if not worker.failed]
    return sorted(found, key=lambda worker: (worker.pool, worker.name))


def omitted(observed: ModelDeploymentObservation) -> int | None:
    """How many workers the status has no room for; None for none."""
    return max(0, len(shown(observed)) - MAX_LISTED_WORKERS) or None


def listed(
    observed: ModelDeploymentObservation, *, displaced: Sequence[Displacement] = ()
) -> tuple[WorkerStatus, ...]:
    """The first so many workers; `displaced` are those whose successors are due."""
    leaving = {one.worker: one for one in displaced}
    return tuple(
        WorkerStatus(
            name=worker.name,
            pool=worker.pool,
            backend=worker.backend,
            pod=worker.name if worker.backend == "kubernetes" else None,
            job_id=worker.job_id,
            node=worker.node,
            phase=worker.phase,
            healthy=worker.healthy,
            url=worker.url,
            tunnel=worker.tunnel,
            revision=worker.revision,
            started_at=worker.started_at,
            ends_at=worker.ends_at,
            draining=_draining(observed, worker),
            displaced=_displaced(leaving.get(worker.name)),
            replaces=worker.replaces,
        )
        for worker in shown(observed)[:MAX_LISTED_WORKERS]
    )


def _displaced(found: Displacement | None) -> DisplacedStatus | None:
    if found is None:
        return None
    return DisplacedStatus(
        reason=str(found.reason), message=cut(found.message, limit=_MESSAGE_LIMIT)
    )


def _draining(observed: ModelDeploymentObservation, worker: Worker) -> DrainingStatus | None:
    state = worker.draining
    if state is None:
        return None
    reason = "waiting for open requests" if state.waits else "is being terminated"
    if state.cut:
        reason = told(Proceed(cut=state.cut, over=True), budget=observed.desired.drain.timeout)
    return DrainingStatus(since=rfc3339(int(state.since)), reason=reason)
