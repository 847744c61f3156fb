"""What the other workers of a cluster tell of our view of it."""

from isthmus.api.slurmjob import SlurmJob
from isthmus.apiserver.objects import dig
from isthmus.apiserver.resources import SLURM_JOBS
from isthmus.health.prober import Prober
from isthmus.reconcile.queue import Key
from isthmus.reconcile.store import Store


def others_answer(key: Key, job: SlurmJob, *, prober: Prober, store: Store) -> bool:
    """Whether another worker of the same cluster answered its last probe."""
    cluster = job.spec.cluster_ref.model_dump()
    for other, state in prober.states():
        if other == key or not state.last.ok:
            continue
        raw = store.get(SLURM_JOBS, other.namespace, other.name)
        if raw is not None and dig(raw, "spec", "clusterRef") == cluster:
            return True
    return False
