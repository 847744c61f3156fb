"""What one SLURM cluster looks like when something is decided about it."""

from dataclasses import dataclass

from isthmus.api.reasons import Reason
from isthmus.backends.slurm.records import Snapshot


@dataclass(frozen=True, slots=True)
class ClusterObservation:
    """One SlurmCluster, seen from one of its jobs.

    Attributes:
        usable: it exists and may be used from the job's namespace.
        fresh: its last snapshot is complete and recent; without that, nothing is created,
            cancelled or concluded.
        reason: why it is not usable or not fresh.
        message: the same as a sentence with what to do.
        snapshot: the last complete one.
        snapshot_starts: when the last few snapshots that show all jobs were begun, epoch seconds.
        unresolved: submissions on this cluster of which nobody knows the outcome, as it looks in an
            outage; of each namespace only so many as are its share (`ClusterView`).
        unresolved_here: all unclear submissions on this cluster of the job's own namespace.
        unread: which fields of its object cannot be read; "" if all can.
    """

    usable: bool
    fresh: bool
    reason: Reason = Reason.SNAPSHOT_COMPLETE
    message: str = ""
    snapshot: Snapshot | None = None
    snapshot_starts: tuple[float, ...] = ()
    unresolved: int = 0
    unresolved_here: int = 0
    unread: str = ""

    @property
    def shows_all(self) -> bool:
        """Whether a job that the last snapshot does not show is not there."""
        return self.snapshot is None or self.snapshot.shows_all

    def complete_since(self, moment: float) -> int:
        """Number of snapshots that show all jobs begun after a moment (epoch seconds)."""
        return sum(start > moment for start in self.snapshot_starts)
