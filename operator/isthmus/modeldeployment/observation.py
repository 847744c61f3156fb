"""What is known of one ModelDeployment when it is planned, and what the plan is."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from isthmus.api.desired import Desired, Pool
from isthmus.api.modeldeployment_status import ModelDeploymentStatus
from isthmus.api.reasons import Reason
from isthmus.backends.base import Pending, WorkerGroup
from isthmus.modeldeployment.actions import DeploymentAction, RestoreLabels


@dataclass(frozen=True, slots=True)
class Reachability:
    """Whether the SLURM cluster of a pool can be seen and used; `reason` and `message` if not.

    Attributes:
        accepts: new workers may be made there; False while its SlurmCluster is being deleted,
            which waits for the last worker to go.
        draining: nodes that take no new jobs because they are drained, each with the reason that
            SLURM has for it ("" for none).
    """

    reachable: bool
    reason: Reason = Reason.SNAPSHOT_COMPLETE
    message: str = ""
    accepts: bool = True
    draining: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FrozenRevision:
    """One ControllerRevision.

    Attributes:
        created_at: epoch seconds.
    """

    pool: str
    revision: str
    created_at: float


@dataclass(frozen=True, slots=True)
class ModelDeploymentObservation:
    """One ModelDeployment and everything that belongs to it.

    Attributes:
        desired: what is asked for, derived defaults filled.
        current: pool name to the revision that the pool is meant to run.
        revisions: what has been frozen already.
        groups: workers by pool and revision, pools that left the specification included.
        clusters: SLURM pool name (also one that left the specification) to its cluster's state.
        service_ok: the Service is there and as we want it, or waits for the front's first pod.
        front_ok: the front and the Service of the workers are there and as we want them.
        front_exists: any of the two is there.
        router_problem: of a router that is not ours: "" while it is in step, None without one or
            before the first look.
        front_rolled_out: all pods of the front are as they are wanted now.
        front_understands: version of the contract that each pod of the front understands, None
            where none has said it yet.
        client_keys_problem: of the Secret of clients' keys: "" while nothing is wrong with it, None
            where clients need none.
        front_available: a pod of the front takes requests, or none is needed yet.
        front_problem: why no pod of the front is ready, None where none is known.
        lost_labels: what is given back to SlurmJobs of its.
        retry_base: first back-off after a failed attempt, seconds.
        retry_cap: longest back-off, seconds.
        floor: least seconds between a worker's leaving the rotation and its end.
        shutdown: seconds between TERM and KILL for an engine.
    """

    desired: Desired
    has_finalizer: bool
    current: Mapping[str, str]
    revisions: tuple[FrozenRevision, ...]
    groups: tuple[WorkerGroup, ...]
    clusters: Mapping[str, Reachability]
    service_ok: bool
    status: ModelDeploymentStatus
    retry_base: float
    retry_cap: float
    front_ok: bool = True
    front_exists: bool = False
    floor: float = 5.0
    shutdown: float = 60.0
    front_available: bool = True
    front_problem: Pending | None = None
    router_problem: str | None = None
    front_rolled_out: bool = True
    front_understands: int | None = None
    client_keys_problem: str | None = None
    lost_labels: tuple[RestoreLabels, ...] = ()

    def groups_of(self, pool: str) -> tuple[WorkerGroup, ...]:
        """Groups of a pool, in the order given."""
        return tuple(group for group in self.groups if group.pool == pool)

    def group(self, *, pool: Pool) -> WorkerGroup:
        """The group of the pool's current revision, empty if nothing was asked of it yet."""
        revision = self.current[pool.name]
        for group in self.groups_of(pool.name):
            if group.revision == revision:
                return group
        return WorkerGroup(
            pool=pool.name, backend=pool.backend, revision=revision, wanted=0, exists=False
        )

    def reachable(self, pool: str) -> bool:
        """Whether the pool's scheduler can be seen (Kubernetes always can)."""
        found = self.clusters.get(pool)
        return found is None or found.reachable

    def accepts(self, pool: str) -> bool:
        """Whether the pool's scheduler may be given new workers."""
        found = self.clusters.get(pool)
        return found is None or found.accepts


@dataclass(frozen=True, slots=True)
class ModelDeploymentPlan:
    """Actions in order, the status to write, and when to look again (seconds, None: on change)."""

    status: ModelDeploymentStatus
    actions: tuple[DeploymentAction, ...] = field(default=())
    requeue_after: float | None = None
