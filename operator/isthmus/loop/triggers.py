"""Which keys a change concerns: the store's changes and the clusters' snapshots become queue keys.

Only hints: a missed one costs time until the next resync, never correctness.
"""

from isthmus.api import names
from isthmus.api.conditions import UNCLEAR, Phase
from isthmus.api.desired import ClusterReference
from isthmus.apiserver.clusters import cluster_of
from isthmus.apiserver.key import Key
from isthmus.apiserver.objects import (
    Object,
    deletion_timestamp,
    dig,
    labels,
    name,
    namespace,
    uid,
)
from isthmus.apiserver.resources import (
    MODEL_DEPLOYMENTS,
    PODS,
    SLURM_CLUSTERS,
    SLURM_JOBS,
    Resource,
)
from isthmus.apiserver.store import Store
from isthmus.backends.slurm.records import SnapshotChanges
from isthmus.loop.queue import WorkQueue

PARTS_GAP = 0.1
"""Seconds for which a change of a pod, job or slice waits for others of the same deployment."""

FEW = 8
GAP_PER_WORKER = 0.02
MOST_GAP = 2.0
"""Longer with more than a few workers: many change at once, and each pass looks at all of them."""

MODEL_DEPLOYMENT = "ModelDeployment"
SLURM_JOB = "SlurmJob"
SLURM_CLUSTER = "SlurmCluster"
_UNSETTLED = UNCLEAR | {Phase.DRAINING}


class Triggers:
    """Adds keys to the queue."""

    def __init__(self, *, store: Store, queue: WorkQueue, operator_namespace: str) -> None:
        """Prepare; `attach` begins."""
        self._store = store
        self._queue = queue
        self._operator_namespace = operator_namespace

    def attach(self) -> None:
        """Listen to the store from now on."""
        self._store.on_change(self.object_changed)

    def add_all(self) -> None:
        """Add every object of our kinds, as after the first sync."""
        for resource in (SLURM_CLUSTERS, SLURM_JOBS, MODEL_DEPLOYMENTS):
            for obj in self._store.list(resource):
                self._queue.add(key_of(resource, obj), later=True)

    def object_changed(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        """Take a change of the store (`Listener`)."""
        obj = new if new is not None else old
        if obj is None:
            return
        if resource in {MODEL_DEPLOYMENTS, SLURM_JOBS, SLURM_CLUSTERS}:
            self._queue.add(key_of(resource, obj))
        if resource == MODEL_DEPLOYMENTS and _differs(old, new):
            # Its attempts read the rules of health, drain and endpoint from it.
            for job in self._store.owned(SLURM_JOBS, uid(obj)):
                self._queue.add(key_of(SLURM_JOBS, job))
        if resource == SLURM_CLUSTERS:
            if _differs(old, new):
                reference = ClusterReference(namespace=namespace(obj), name=name(obj))
                self._add_cluster(reference)
            return
        if resource == SLURM_JOBS and (old is None or new is None):
            # A SlurmCluster being deleted waits for its last SlurmJob.
            reference = cluster_of(obj)
            self._queue.add(Key(SLURM_CLUSTER, reference.namespace, reference.name))
        deployment: object = labels(obj).get(names.LABEL_DEPLOYMENT)
        if resource == SLURM_JOBS and deployment is None:  # somebody took its labels
            deployment = dig(obj, "spec", "deployment")
        if resource != MODEL_DEPLOYMENTS and isinstance(deployment, str):
            key = Key(MODEL_DEPLOYMENT, namespace(obj), deployment)
            self._queue.add_after(key, self._gap(key), later=False)
        self._add_owners(obj)

    def _gap(self, key: Key) -> float:
        place = key.namespace, key.name
        workers = sum(self._store.count_labelled(each, *place) for each in (PODS, SLURM_JOBS))
        return min(PARTS_GAP + GAP_PER_WORKER * max(0, workers - FEW), MOST_GAP)

    def probe_changed(self, key: Key) -> None:
        """Take a change of a probed worker: a SlurmJob itself, or a pod of a ModelDeployment."""
        if key.kind == SLURM_JOB:
            self._queue.add(key)
            return
        pod = self._store.get(PODS, key.namespace, key.name)
        deployment = None if pod is None else labels(pod).get(names.LABEL_DEPLOYMENT)
        if deployment is not None:
            self._queue.add(Key(MODEL_DEPLOYMENT, key.namespace, deployment))

    def cluster_changed(self, reference: ClusterReference, changed: SnapshotChanges | None) -> None:
        """Take a snapshot or failure: what it changed, None for the cluster's reachability."""
        self._queue.add(Key(SLURM_CLUSTER, reference.namespace, reference.name))
        if changed is None:
            self._add_cluster(reference)
            return
        for obj in self._store.list(SLURM_JOBS):
            if cluster_of(obj) != reference:
                continue
            if dig(obj, "spec", "jobName") in changed.jobs or _unsettled(obj):
                self._queue.add(key_of(SLURM_JOBS, obj))
        if changed.draining:  # workers there are to be replaced, or no more
            self._add_deployments(reference)

    def _add_cluster(self, reference: ClusterReference) -> None:
        """Everything that depends on a cluster."""
        for obj in self._store.list(SLURM_JOBS):
            if cluster_of(obj) == reference:
                self._queue.add(key_of(SLURM_JOBS, obj))
        self._add_deployments(reference)

    def _add_deployments(self, reference: ClusterReference) -> None:
        for obj in self._store.list(MODEL_DEPLOYMENTS):
            if reference in self._references(obj):
                self._queue.add(key_of(MODEL_DEPLOYMENTS, obj))

    def _references(self, obj: Object) -> frozenset[ClusterReference]:
        found = set()
        pools = dig(obj, "spec", "pools", default=[])
        for pool in pools if isinstance(pools, list) else []:
            cluster = dig(pool, "slurm", "clusterRef", "name")
            if isinstance(cluster, str):
                place = dig(pool, "slurm", "clusterRef", "namespace")
                found.add(
                    ClusterReference(
                        namespace=place if isinstance(place, str) else self._operator_namespace,
                        name=cluster,
                    )
                )
        return frozenset(found)

    def _add_owners(self, obj: Object) -> None:
        """A slice of ours concerns its SlurmJob."""
        owners = dig(obj, "metadata", "ownerReferences", default=[])
        for owner in owners if isinstance(owners, list) else []:
            if dig(owner, "kind") == SLURM_JOB:
                self._queue.add(Key(SLURM_JOB, namespace(obj), str(dig(owner, "name"))))


def key_of(resource: Resource, obj: Object) -> Key:
    """The queue key of an object of ours."""
    return Key(resource.kind, namespace(obj), name(obj))


def _unsettled(obj: Object) -> bool:
    """Whether a snapshot that does not name the job may still be news to it.

    Not to one that waits to be submitted: it looks again by itself, and hundreds may wait.
    """
    if deletion_timestamp(obj) is not None or dig(obj, "status", "phase") in _UNSETTLED:
        return True
    return dig(obj, "status", "jobId") is not None and dig(obj, "status", "state") is None


def _differs(old: Object | None, new: Object | None) -> bool:
    """Whether an object's specification or existence changed, and not only its status."""
    if old is None or new is None:
        return True
    return dig(old, "spec") != dig(new, "spec") or (deletion_timestamp(old) is None) != (
        deletion_timestamp(new) is None
    )
