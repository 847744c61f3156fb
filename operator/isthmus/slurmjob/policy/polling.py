"""When a cluster is looked at sooner than its poll interval.

A start is what people wait for: while a submission is young, or it is not clear whether it made a
job, the cluster is looked at every ten seconds, so that an interval of 30 s does not cost half a
minute until a job is seen to run. A job publishes its port when its engine listens, for most
engines at the end of the load: that is looked for at intervals of an eighth of what the load has
taken so far, so a worker is late by a sixteenth of its load on average, and a long one asks for
little.
Settled jobs never ask for more.
"""

from isthmus.api.conditions import UNCLEAR, Phase
from isthmus.slurmjob.observation import SlurmJobObservation
from isthmus.slurmjob.record import AttemptStatus

LOOK_EVERY = 10.0
LEAST = 4.0
"""Seconds between two looks for a port that is awaited, at least."""
YOUNG = 120.0
_SHARE = 1 / 8
_LONG = 60.0
"""A load that has taken so long that its next look would be this far away asks for no more."""
_SUBMITTED = UNCLEAR | {Phase.PENDING}


def look_in(observed: SlurmJobObservation, *, status: AttemptStatus, now: float) -> float | None:
    """Seconds until the cluster should be looked at for this job; None for its own interval.

    Args:
        observed: the job.
        status: as it will be written.
        now: epoch seconds.

    Returns:
        0 for at once.
    """
    snapshot = observed.cluster.snapshot
    if snapshot is None or not observed.cluster.fresh:
        return None
    pace = _pace(observed, status=status, now=now)
    return None if pace is None else max(0.0, snapshot.started_at + pace - now)


def _pace(observed: SlurmJobObservation, *, status: AttemptStatus, now: float) -> float | None:
    """Seconds between two looks that this job asks for."""
    if status.phase == Phase.STARTING:
        return None if status.port is not None else _loading(observed, status=status, now=now)
    submitted = status.submission.started_at
    young = submitted is not None and now - submitted < YOUNG
    unclear = status.phase in UNCLEAR and not _pausing(observed, status=status, now=now)
    if status.phase not in _SUBMITTED or not (young or unclear):
        return None
    return LOOK_EVERY


def _loading(observed: SlurmJobObservation, *, status: AttemptStatus, now: float) -> float | None:
    """By how long it has been running, on the cluster's clock."""
    started, snapshot = status.job.start_time, observed.cluster.snapshot
    if started is None or snapshot is None:
        return LOOK_EVERY
    running = snapshot.cluster_time - started + now - snapshot.taken_at
    pace = max(LEAST, running * _SHARE)
    return None if pace > _LONG else pace


def _pausing(observed: SlurmJobObservation, *, status: AttemptStatus, now: float) -> bool:
    """Whether what could turn up would have, so that only the pause before the next try is left."""
    since = status.submission.unknown_since
    return since is not None and now - since > observed.limits.submit_unknown_wait + YOUNG
