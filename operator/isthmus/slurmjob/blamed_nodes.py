"""The nodes that an attempt is submitted without: read from the store."""

from dataclasses import dataclass

from isthmus.api.conditions import UNCLEAR, UNSUBMITTED
from isthmus.api.desired import ClusterReference
from isthmus.api.slurmcluster import SlurmCluster
from isthmus.api.slurmjob import SlurmJob, SlurmJobStatus
from isthmus.api.times import epoch
from isthmus.apiserver.reading import Reading, read_job
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
    revision = (spec.pool, spec.revision, spec.cluster)
    told = (
        store.derived.of_read(raw, read=read_job, make=_told)
        for raw in store.labelled(SLURM_JOBS, job.metadata.namespace, spec.deployment)
    )
    partitions = template.partitions or (cluster.spec.defaults.partition or "",)
    return blame.excluded(
        [one.attempt for one in told if one is not None and one.revision == revision],
        nodes=snapshot.nodes.values(),
        partitions=frozenset(partitions) - {""},
        options=template.sbatch_options,
        now=now,
    )


@dataclass(frozen=True, slots=True)
class _Told:
    """What the rule looks at of one SlurmJob, and of which pool, revision and cluster it is."""

    revision: tuple[str, str, ClusterReference]
    attempt: blame.Attempt


def _told(reading: Reading[SlurmJob]) -> _Told | None:
    """None for one that cannot be read, which speaks against no node."""
    job = reading.value
    if job is None:
        return None
    status = job.status or SlurmJobStatus()
    return _Told(
        revision=(job.spec.pool, job.spec.revision, job.spec.cluster),
        attempt=blame.Attempt(
            node=status.nodes or "",
            phase=status.phase,
            reason=status.reason or "",
            finished_at=epoch(status.finished_at),
            without=bool(status.excluded_nodes),
        ),
    )
