"""What is said of one SlurmCluster, from its last complete snapshot or the failure after it."""

from dataclasses import dataclass

from isthmus.api.conditions import ConditionType, Reason, set_condition
from isthmus.api.slurmcluster import OrphanModel, SlurmClusterStatus
from isthmus.backends.slurm.records import Snapshot
from isthmus.backends.slurm.states import node_usable, observe
from isthmus.plan.condition_models import models, typed


@dataclass(frozen=True, slots=True)
class SlurmClusterObservation:
    """One SlurmCluster.

    Attributes:
        fresh: the last snapshot is complete and recent.
        reason: why it is not fresh.
        message: the same as a sentence with what to do.
        warning: what should be corrected although it is fresh.
        our_jobs: job names of our SlurmJobs.
        orphans: jobs of ours that have had no SlurmJob for long; None while that is not known.
    """

    generation: int
    fresh: bool
    reason: str
    message: str
    warning: str
    snapshot: Snapshot | None
    version: str | None
    our_jobs: frozenset[str]
    status: SlurmClusterStatus
    orphans: tuple[OrphanModel, ...] | None = None


def slurm_cluster_status(observed: SlurmClusterObservation, *, now: float) -> SlurmClusterStatus:
    """The status; counts are kept from the last snapshot while none newer can be had."""
    reason = Reason.SNAPSHOT_COMPLETE if observed.fresh else observed.reason
    conditions = set_condition(
        tuple(typed(condition) for condition in observed.status.conditions),
        type=ConditionType.SLURM_REACHABLE,
        status=observed.fresh,
        reason=reason,
        message=_good(observed) if observed.fresh else observed.message,
        now=now,
        observed_generation=observed.generation,
    )
    status = observed.status.model_copy(
        update={
            "observed_generation": observed.generation,
            "conditions": models(conditions),
            "version": observed.version or observed.status.version,
            "orphans": observed.status.orphans if observed.orphans is None else observed.orphans,
            "summary": "Reachable" if observed.fresh else str(reason),
        }
    )
    snapshot = observed.snapshot
    if snapshot is None:
        return status
    usable = sum(node_usable(node) for node in snapshot.nodes.values())
    live = sum(job.name in observed.our_jobs and observe(job).live for job in snapshot.jobs)
    return status.model_copy(update={"nodes": f"{usable}/{len(snapshot.nodes)}", "jobs": live})


def _good(observed: SlurmClusterObservation) -> str:
    said = "squeue and sinfo answer"
    return f"{said}; but {observed.warning}" if observed.warning else said
