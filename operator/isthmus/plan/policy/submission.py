"""Whether an attempt may be submitted, and how an unclear submission is resolved.

An sbatch without a clear answer may have made a job, and slurmctld may have forgotten a job that
it acknowledged. Such an attempt is `SubmitUnknown`: for `submit_unknown_wait` seconds it may still
turn up; after that, two complete snapshots begun later that do not show its name prove that there
is none. Only then is the same attempt submitted again, and its start gate still holds should a
late ghost come after all.
"""

from enum import Enum

from isthmus.api.conditions import Phase
from isthmus.api.slurmjob import SlurmJobStatus
from isthmus.api.times import epoch
from isthmus.plan.slurmjob_observation import SlurmJobObservation

SNAPSHOTS_NEEDED = 2


class Unknown(Enum):
    """What is known of a submission whose outcome is not clear."""

    WAIT = "wait"
    """It may still turn up."""
    ABSENT = "absent"
    """There is no such job."""


def may_submit(observed: SlurmJobObservation) -> bool:
    """Whether an attempt that was never submitted, or is proved absent, may be submitted now.

    Never before a complete, recent snapshot that shows all jobs; never while too many submissions
    of the cluster are unclear: a controller that answers nothing must not be sent everything.
    """
    cluster = observed.cluster
    return (
        cluster.usable
        and cluster.fresh
        and cluster.shows_all
        and not observed.unreadable
        and observed.renderable
        and cluster.unresolved < observed.limits.max_unresolved
    )


def resolve(observed: SlurmJobObservation, *, now: float) -> Unknown:
    """Judge an unclear submission whose name the last snapshot does not show."""
    since = epoch(observed.status.unknown_since)
    if since is None:
        return Unknown.WAIT
    deadline = since + observed.limits.submit_unknown_wait
    unseen_since = max(deadline, observed.last_seen or 0.0)  # it may have been seen, unreadable
    enough = observed.cluster.complete_since(unseen_since) >= SNAPSHOTS_NEEDED
    return Unknown.ABSENT if now >= deadline and enough else Unknown.WAIT


def is_unclear(status: SlurmJobStatus) -> bool:
    """Whether sbatch may have run unheard, as a status found at the begin of a pass tells."""
    return status.phase in {Phase.SUBMITTING, Phase.SUBMIT_UNKNOWN} or (
        status.unknown_since is not None
    )
