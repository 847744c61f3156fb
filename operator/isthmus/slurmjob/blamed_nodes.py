"""The nodes that an attempt is submitted without: read from the store."""

from isthmus.api.conditions import UNCLEAR, UNSUBMITTED
from isthmus.api.slurmcluster import SlurmCluster
from isthmus.api.slurmjob import SlurmJob, SlurmJobStatus
from isthmus.api.times import epoch
from isthmus.apiserver.reading import read_job
from isthmus.apiserver.resources import SLURM_JOBS
from isthmus.apiserver.store import Store
from isthmus.backends.slurm.frozen import FrozenJob
from isthmus.backends.slurm.records import Snapshot
from isthmus.slurmjob.policy import blame

_NOT_SURELY_SUBMITTED = UNSUBMITTED | UNCLEAR


def excluded_nodes(
    job: SlurmJob,
    *,
    store: Store,
    snapshot: Snapshot | None,
    frozen: FrozenJob | None,
    cluster: SlurmCluster | None,
    now: float,
) -> tuple[str, ...]:
    """What `policy.blame` says of an attempt that may be submitted; () for all others."""
    phase = None if job.status is None else job.status.phase
    if snapshot is None or frozen is None or cluster is None or phase not in _NOT_SURELY_SUBMITTED:
        return ()
    spec, template = job.spec, frozen.template
    same = (spec.pool, spec.revision, spec.cluster)
    jobs = (
        store.derived.of(raw, read_job).value
        for raw in store.labelled(SLURM_JOBS, job.metadata.namespace, spec.deployment)
    )
    partitions = template.partitions or (cluster.spec.defaults.partition or "",)
    return blame.excluded(
        [
            _attempt(other)
            for other in jobs
            if other is not None  # one that cannot be read speaks against no node
            and (other.spec.pool, other.spec.revision, other.spec.cluster) == same
        ],
        nodes=snapshot.nodes.values(),
        partitions=frozenset(partitions) - {""},
        options=template.sbatch_options,
        now=now,
    )


def _attempt(job: SlurmJob) -> blame.Attempt:
    status = job.status or SlurmJobStatus()
    return blame.Attempt(
        node=status.nodes or "",
        phase=status.phase,
        reason=status.reason or "",
        finished_at=epoch(status.finished_at),
        without=bool(status.excluded_nodes),
    )
