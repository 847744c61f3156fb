"""What other workers tell: of our view of their cluster, and whether their deployment has more."""

from isthmus.api.slurmjob import SlurmJob
from isthmus.apiserver.clusters import cluster_of
from isthmus.apiserver.key import Key
from isthmus.apiserver.objects import name, uid
from isthmus.apiserver.resources import ENDPOINT_SLICES, PODS, SLURM_JOBS
from isthmus.apiserver.store import Store
from isthmus.routing.slices import members
from isthmus.slurmjob.probes import WorkerProbes


def others_answer(key: Key, job: SlurmJob, *, probes: WorkerProbes, store: Store) -> bool:
    """Whether another worker of the same cluster answered its last probe."""
    for other, state in probes.states():
        if other == key or not state.last.ok:
            continue
        raw = store.get(SLURM_JOBS, other.namespace, other.name)
        if raw is not None and cluster_of(raw) == job.spec.cluster:
            return True
    return False


def others_good(
    key: Key, job: SlurmJob, *, service: str, probes: WorkerProbes, store: Store
) -> bool:
    """Whether another member of the same deployment is known to be good.

    A pod is by the kubelet's word, a job by our own probes of this moment.
    """
    place = key.namespace, job.spec.deployment
    found = members(store.labelled(ENDPOINT_SLICES, *place), service=service)
    if any(name(pod) in found for pod in store.labelled(PODS, *place)):
        return True
    for other in store.labelled(SLURM_JOBS, *place):
        if name(other) == key.name or uid(other) not in found:
            continue
        state = probes.state(Key(key.kind, key.namespace, name(other)))
        if state is not None and state.healthy:
            return True
    return False
