"""Workers whose jobs come to their time limit: their successors serve before that.

SLURM ends the job in any case, so it is involuntary: as many successors as there are workers due
come at once, beyond the surge. How long the queue takes nobody knows; the lead is what a start and
a drain may take, and at most a quarter of the job's time, so that a job with a short limit is not
replaced from its first minute on.
"""

from collections.abc import Iterator
from typing import Final

from isthmus.api.desired import Desired
from isthmus.api.reasons import Reason
from isthmus.api.times import epoch
from isthmus.backends.base import Worker
from isthmus.modeldeployment.observation import ModelDeploymentObservation
from isthmus.modeldeployment.policy.displacement.base import Displacement

MOST: Final = 0.25
"""The part of a job's time that its successor may be early by."""


def displaced(observed: ModelDeploymentObservation) -> tuple[Displacement, ...]:
    """Live workers of current revisions whose end is known, each from its lead before that on."""
    return tuple(_displaced(observed))


def _displaced(observed: ModelDeploymentObservation) -> Iterator[Displacement]:
    for pool in observed.desired.pools:
        if pool.backend != "slurm":
            continue
        for worker in observed.group(pool=pool).live_workers:
            ready_by = _ready_by(worker, desired=observed.desired)
            if ready_by is not None:
                yield Displacement(
                    worker=worker.name,
                    reason=Reason.TIME_LIMIT_NEAR,
                    message=f"its job ends at {worker.ends_at} by its time limit; another worker "
                    "takes over first",
                    ready_by=ready_by,
                    involuntary=True,
                )


def _ready_by(worker: Worker, *, desired: Desired) -> float | None:
    start, end = epoch(worker.started_at), epoch(worker.ends_at)
    if start is None or end is None or end <= start:
        return None
    lead = min(desired.health.startup_timeout + desired.drain.timeout, MOST * (end - start))
    return end - lead
