"""What is said of one SlurmCluster, from its last complete snapshot or the failure after it."""

from dataclasses import dataclass

from isthmus.api.conditions import ConditionType, Reason, set_condition
from isthmus.api.slurmcluster import OrphanModel, SlurmClusterStatus
from isthmus.backends.slurm.records import Snapshot
from isthmus.backends.slurm.states import node_usable, observe
from isthmus.rules.conditions import models, typed
from isthmus.rules.telling import with_problem
from isthmus.slurmcluster.policy.unreadable import told

_HIDDEN = (
    "the site hides its nodes from us (PrivateData=nodes in slurm.conf). Jobs are submitted, "
    "served and ended as everywhere, at the address that their node's name has. Not known: states "
    "of nodes (drained, down, in maintenance), how many can be used, their NodeAddr. To have "
    "these, ask for the cluster's user to be made an Operator, or for nodes without PrivateData"
)


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
        unread: which fields of its object cannot be read; "" if all can.
    """

    generation: int
    fresh: bool
    reason: Reason
    message: str
    warning: str
    snapshot: Snapshot | None
    version: str | None
    our_jobs: frozenset[str]
    status: SlurmClusterStatus
    orphans: tuple[OrphanModel, ...] | None = None
    unread: str = ""


def slurm_cluster_status(observed: SlurmClusterObservation, *, now: float) -> SlurmClusterStatus:
    """The status; counts are kept from the last snapshot while none newer can be had."""
    reason, summary, message = _said(observed)
    conditions = set_condition(
        tuple(typed(condition) for condition in observed.status.conditions),
        type=ConditionType.SLURM_REACHABLE,
        status=observed.fresh,
        reason=reason,
        message=message,
        now=now,
        observed_generation=observed.generation,
    )
    status = observed.status.model_copy(
        update={
            "observed_generation": observed.generation,
            "conditions": with_problem(
                models(conditions),
                ConditionType.READABLE,
                reason=Reason.INVALID_SPEC,
                problem=observed.unread,
                now=now,
            ),
            "version": observed.version or observed.status.version,
            "orphans": observed.status.orphans if observed.orphans is None else observed.orphans,
            "summary": summary,
        }
    )
    snapshot = observed.snapshot
    if snapshot is None:
        return status
    live = sum(job.name in observed.our_jobs and observe(job).live for job in snapshot.jobs)
    live += sum(job.name in observed.our_jobs for job in snapshot.unreadable)
    return _with_nodes(observed, status, snapshot, now=now).model_copy(update={"jobs": live})


def _said(observed: SlurmClusterObservation) -> tuple[Reason, str, str]:
    """Reason, summary and sentence of the condition SlurmReachable."""
    if not observed.fresh:
        return observed.reason, observed.reason, observed.message
    problem = "" if observed.snapshot is None else told(observed.snapshot)
    reason = Reason.RECORDS_UNREADABLE if problem else Reason.SNAPSHOT_COMPLETE
    hidden = observed.snapshot is not None and not observed.snapshot.nodes
    good = "squeue answers" if hidden else "squeue and sinfo answer"
    said = "; but ".join(text for text in (good, problem, observed.warning) if text)
    return reason, "Reachable, some records unreadable" if problem else "Reachable", said


def _with_nodes(
    observed: SlurmClusterObservation,
    status: SlurmClusterStatus,
    snapshot: Snapshot,
    *,
    now: float,
) -> SlurmClusterStatus:
    """How many nodes can be used, or that the site does not show them and what is off for that."""
    total, usable = len(snapshot.nodes), sum(map(node_usable, snapshot.nodes.values()))
    conditions = set_condition(
        tuple(typed(condition) for condition in status.conditions),
        type=ConditionType.NODES_VISIBLE,
        status=total > 0,
        reason=Reason.NODES_LISTED if total else Reason.NODES_HIDDEN,
        message="" if total else _HIDDEN,
        now=now,
        observed_generation=observed.generation,
    )
    nodes = f"{usable}/{total}" if total else "hidden"
    return status.model_copy(update={"conditions": models(conditions), "nodes": nodes})
