"""When a cluster is looked at sooner than its poll interval.

A start is what people wait for: while a submission is young, or it is not clear whether it made a
job, the cluster is looked at every ten seconds, so that an interval of 30 s does not cost half a
minute at each step (queued, running, port published). Settled jobs never ask for more.
"""

from isthmus.api.conditions import Phase
from isthmus.api.slurmjob import SlurmJobStatus
from isthmus.api.times import epoch
from isthmus.plan.slurmjob_observation import SlurmJobObservation

LOOK_EVERY = 10.0
YOUNG = 120.0
_AWAITED = frozenset({Phase.SUBMITTING, Phase.SUBMIT_UNKNOWN, Phase.PENDING, Phase.STARTING})


def look_in(observed: SlurmJobObservation, *, status: SlurmJobStatus, now: float) -> float | None:
    """Seconds until the cluster should be looked at for this job; None for its own interval.

    Args:
        observed: the job.
        status: as it will be written.
        now: epoch seconds.

    Returns:
        0 for at once.
    """
    submitted = epoch(status.submit_started_at)
    unclear = status.phase in {Phase.SUBMITTING, Phase.SUBMIT_UNKNOWN} and not _pausing(
        observed, status=status, now=now
    )
    young = submitted is not None and now - submitted < YOUNG
    located = status.phase == Phase.STARTING and status.port is not None
    if status.phase not in _AWAITED or located or not (young or unclear):
        return None
    snapshot = observed.cluster.snapshot
    if snapshot is None or not observed.cluster.fresh:
        return None
    return max(0.0, snapshot.started_at + LOOK_EVERY - now)


def _pausing(observed: SlurmJobObservation, *, status: SlurmJobStatus, now: float) -> bool:
    """Whether what could turn up would have, so that only the pause before the next try is left."""
    since = epoch(status.unknown_since)
    return since is not None and now - since > observed.limits.submit_unknown_wait + YOUNG
