"""Jobs of this installation that no SlurmJob object stands for, and when they may be ended.

They come from a slurmctld that went back to an older state, from a status or an object that was
lost, or from a submission that turned up after its gate could not be closed. The gate lets at most
one engine through per attempt, so an orphan is a waste of GPUs and never a second worker: there is
time to be sure.
"""

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass

from isthmus.api.conditions import Reason
from isthmus.api.names import SlurmJobName, parse_slurm_job_name
from isthmus.backends.slurm.records import JobRecord
from isthmus.backends.slurm.states import JobState, observe

SNAPSHOTS_NEEDED = 3


@dataclass(frozen=True, slots=True)
class Sighting:
    """How long a job has been an orphan without a break.

    Attributes:
        first: begin of the first snapshot that showed it so, epoch seconds.
        last: begin of the latest one.
        count: complete snapshots that showed it so.
    """

    first: float
    last: float
    count: int

    def long_enough(self, *, seconds: float) -> bool:
        """Whether it is no passing state of ours or of slurmctld's, after so many seconds."""
        return self.count >= SNAPSHOTS_NEEDED and self.last - self.first >= seconds


@dataclass(frozen=True, slots=True)
class Orphan:
    """One job of ours without an object.

    Attributes:
        reason: `DeploymentGone` or `AttemptUnknown`.
    """

    record: JobRecord
    reason: Reason

    @property
    def ends_by_itself(self) -> bool:
        """Whether SLURM is ending it already."""
        return observe(self.record) is JobState.Completing


Sightings = Mapping[tuple[int, str], Sighting]
"""By (job id, job name)."""


def find(
    jobs: Iterable[JobRecord],
    *,
    installation_id: str,
    known: Set[str],
    deployments: Callable[[], Set[str]],
    in_sight: Callable[[JobRecord], bool],
) -> tuple[Orphan, ...]:
    """All orphans of a snapshot, by job id.

    Args:
        jobs: of the account.
        installation_id: ours; jobs of others are never looked at.
        known: job names of all SlurmJob objects.
        deployments: hashes (`names.deployment_hash`) of all ModelDeployments.
        in_sight: whether the objects of a job's namespace can be seen at all.
    """
    found: list[tuple[JobRecord, SlurmJobName]] = []
    for record in jobs:
        if record.name in known or not observe(record).live:
            continue
        name = parse_slurm_job_name(record.name)
        if name is not None and name.installation_id == installation_id and in_sight(record):
            found.append((record, name))
    if not found:
        return ()
    present = deployments()
    return tuple(
        Orphan(
            record=record,
            reason=Reason.ATTEMPT_UNKNOWN
            if name.deployment_hash in present
            else Reason.DEPLOYMENT_GONE,
        )
        for record, name in sorted(found, key=lambda entry: entry[0].job_id)
    )


def sighted(before: Sightings, orphans: Iterable[Orphan], *, started_at: float) -> Sightings:
    """The sightings after one more look; what is no orphan any more begins anew one day.

    Args:
        before: after the look before.
        orphans: of this snapshot.
        started_at: when it was begun, epoch seconds; the same snapshot counts once.
    """
    return {
        (orphan.record.job_id, orphan.record.name): _seen_again(
            before.get((orphan.record.job_id, orphan.record.name)), started_at
        )
        for orphan in orphans
    }


def _seen_again(before: Sighting | None, started_at: float) -> Sighting:
    if before is None or started_at < before.last:  # also when our clock was set back
        return Sighting(first=started_at, last=started_at, count=1)
    if started_at == before.last:
        return before
    return Sighting(first=before.first, last=started_at, count=before.count + 1)
