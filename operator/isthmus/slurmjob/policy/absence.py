"""When a job that SLURM does not list is surely gone.

One look is no proof: squeue may have been asked while the job was on its way, and slurmctld may
have answered from a state that it restored. It takes two complete snapshots, begun after the moment
in question, and for a job that SLURM once listed a second source: the answer for its id alone.
"""

from enum import Enum

from isthmus.slurmcluster.observation import ClusterObservation
from isthmus.slurmjob.observation import SlurmJobObservation

SNAPSHOTS_NEEDED = 2


class Absence(Enum):
    """How far it is proved that the job of an attempt is gone, which no snapshot shows now."""

    TOO_EARLY = "too early"
    """Too few snapshots were begun since it was submitted, or last seen."""
    UNCONFIRMED = "unconfirmed"
    """Enough snapshots do not show it; the second source has not been asked."""
    GONE = "gone"
    """The second source does not know it either."""


def enough_snapshots_since(cluster: ClusterObservation, moment: float) -> bool:
    """Whether enough complete snapshots were begun since a moment (epoch seconds).

    None of them shows a job that is gone; one that exists stands in them.
    """
    return cluster.complete_since(moment) >= SNAPSHOTS_NEEDED


def judge(observed: SlurmJobObservation) -> Absence:
    """Judge an attempt whose name the last snapshot does not show."""
    submitted = observed.status.submission.started_at or 0.0
    if not enough_snapshots_since(observed.cluster, max(observed.last_seen or 0.0, submitted)):
        return Absence.TOO_EARLY
    return Absence.GONE if observed.confirmed_gone else Absence.UNCONFIRMED
