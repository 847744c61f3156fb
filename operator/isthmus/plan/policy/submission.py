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


def held_back_by(observed: SlurmJobObservation) -> str:
    """What an attempt that was never submitted, or is proved absent, waits for; "" for nothing.

    It waits for a complete, recent snapshot that shows all jobs, and while too many submissions
    of the cluster are unclear: a controller that answers nothing must not be sent everything.
    """
    cluster = observed.cluster
    if not (cluster.usable and cluster.fresh):
        return cluster.message or "waits for a complete look at the cluster"
    if not cluster.shows_all or observed.unreadable:
        return (
            "waits for squeue to show all jobs readably: until then nobody can say that no job of "
            "this attempt exists; see RecordsUnreadable on the SlurmCluster"
        )
    for what, unread in (("SlurmJob", observed.unread), ("SlurmCluster", cluster.unread)):
        if unread:
            return (
                f"not submitted, for its {what} cannot be read in full ({unread}): what is left "
                "out may be meant. If a newer release of the operator wrote it, run that one again"
            )
    if not observed.renderable:
        return (
            "waits for the ControllerRevision of its revision, which says what to run: if it was "
            "deleted, delete this SlurmJob and its worker is made anew"
        )
    if cluster.unresolved >= observed.limits.max_unresolved:
        return (
            f"waits while {observed.limits.max_unresolved} or more submissions of this "
            "SlurmCluster, of all namespaces, have no clear outcome: see the SlurmJobs in state "
            "SubmitUnknown"
        )
    return ""


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
